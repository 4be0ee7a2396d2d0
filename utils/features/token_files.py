"""Token features out of a `.npz` or LMDB file with an array (tokens, width) for each query."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.base.errors import UserError, in_brief
from utils.base.files import file_stamp, fingerprint
from utils.features.lmdb_files import LmdbFile, as_rows
from utils.features.stores import open_store
from utils.features.tokens import TokenStore, create_tokens


def read_tokens(
    file: Path,
    keys: list[str],
    cache: Path,
    half: bool,
    device: torch.device | str = "cpu",
    device_policy: str = "cpu",
) -> TokenStore:
    """Token features of the queries named by `keys`, copied into a store.

    Raises `UserError` if the file is missing or damaged, or lacks a query.
    """
    if not file.exists():
        raise UserError(f"{file}: no such file of token features")
    data = file / "data.mdb" if file.is_dir() else file
    precision = np.dtype(np.float16 if half else np.float32)

    def arrays() -> Iterator[np.ndarray]:
        try:
            is_npz = file.suffix == ".npz"
            stored = np.load(file, allow_pickle=False) if is_npz else LmdbFile(file)
            for key in keys:
                tokens = stored.get(key)
                if tokens is None:
                    raise UserError(f"{file}: has no features of query {key}")
                yield as_rows(tokens, f"{file}: {key}")
        except UserError:
            raise
        except Exception as error:  # the parser of a damaged file may trip over anything
            raise UserError(f"{file}: damaged, or not a .npz file ({in_brief(error)})") from None

    def build(folder: Path) -> dict:
        shapes = [tokens.shape for tokens in tqdm(arrays(), f"checking {file}", len(keys), False)]
        lengths, widths = np.array(shapes).T
        if len(set(widths)) > 1 or not lengths.all():
            raise UserError(f"{file}: features must have tokens, and all the same width")
        stored, offsets = create_tokens(folder, lengths, 0, widths[0], precision)
        for first, tokens in zip(offsets, arrays(), strict=False):
            with np.errstate(over="ignore"):
                stored[first : first + len(tokens)] = tokens
        if not np.isfinite(stored).all():
            raise UserError(f"{file}: holds features that are NaN or too large for {precision}")
        stored.flush()
        return {"file": str(file), "queries": len(keys)}

    folder = open_store(cache, "tokens", fingerprint(file_stamp(data), keys, half), build)
    return TokenStore.open(folder, device, device_policy)
