"""Where features lie on the net: the published release's links, or another file of that form."""

import re
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from utils.base.files import read_json

MANIFEST = Path(__file__).with_name("feature_manifest.json")

Count = Annotated[int, Meta(ge=0)]
FeatureName = Annotated[str, Meta(pattern=r"^\w[\w.-]*$")]  # it names a folder


class RemoteFile(Struct, frozen=True):
    """A file to fetch, and what is known of it."""

    url: str
    size: Count | None = None  # bytes
    sha256: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[A-Za-z0-9\[][!-~]*", self.url):
            raise ValueError(
                f"{self.url!r} is not an address: it must begin with http:// or https:// and hold "
                "no spaces or letters beyond ASCII (write those as %20 and the like)"
            )


class Source(Struct):
    """Where the archive of a feature is."""

    parts: list[RemoteFile]
    width: Count | None = None  # of its rows, if known
    folder: str | None = None  # inside the archive, with the clips; None: anywhere
    bytes: Count = 0  # of all parts, about; 0: unknown


class Manifest(Struct):
    """Sources by feature type, and pages for a person by what is there."""

    features: dict[FeatureName, Source]
    pages: dict[str, str] = {}


def read_manifest(path: Path = MANIFEST) -> Manifest:
    """Raises `UserError` for a missing or malformed file."""
    return read_json(path, Manifest)
