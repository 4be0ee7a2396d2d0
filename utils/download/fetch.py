"""One file from the net: resumed where it stopped, retried, checked, and there whole or not at all.

Bytes are gathered in `<file>.part`; `<file>.part.json` beside it says of what. A download that was
stopped, by whatever, goes on from there the next time, unless the file on the server has changed.
"""

import hashlib
import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

from utils.base.errors import UserError, warn
from utils.base.files import write_json
from utils.base.tables import show_size

BLOCK = 1 << 20  # bytes read at once
RESERVE = 64 << 20  # bytes of a disk that are left free
LONGEST_PAUSE = 60.0  # seconds between attempts
PASSING = (408, 425, 429)  # refusals that go by; so do all server errors, 500 and up


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch, and what is known of it."""

    url: str
    size: int | None = None  # bytes
    sha256: str | None = None


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    attempts: int = 6  # in a row that bring no further byte
    pause: float = 1.0  # seconds after the first of them, doubled after each
    stall: float = 60.0  # seconds without a byte after which an attempt ends


class _Unfinished(Exception):
    """An attempt that ended early; another may bring the rest."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait  # seconds the server asks for


def fetch(remote: RemoteFile, path: Path, patience: Patience = Patience()) -> None:
    """Bring a file to `path`; one that is there and fits what is known of it is kept.

    Raises:
        UserError: the address is refused or gives something else, the disk is too full, or the
            server brings no further byte in several attempts; what came so far is kept, unless its
            checksum is wrong.
    """
    check_url(remote.url)
    if path.exists():
        fault = _misfit(path, remote)
        if fault is None:
            return
        warn(f"{path}: {fault}; it is fetched again")
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(f"{path}.part")
    with tqdm(
        desc=f"fetching {path.name}", total=remote.size, unit="B", unit_scale=True, leave=False
    ) as bar:
        _gather(remote, part, patience, bar)
    fault = _misfit(part, remote)
    if fault is not None:
        part.unlink()
        _notes(part).unlink(missing_ok=True)
        raise UserError(
            f"{remote.url}: {fault}; what came was deleted: try again, and if this comes again, "
            "the file there is another one"
        )
    part.replace(path)
    _notes(part).unlink(missing_ok=True)


def check_url(url: str) -> None:
    """Refuse what isn't an address of the web."""
    try:
        address = urlsplit(url)
        fits = address.scheme in ("http", "https") and bool(address.hostname)
        fits &= address.port != 0  # looking at it raises ValueError for one that is no number
    except ValueError:
        fits = False
    if not fits or not re.fullmatch(r"[!-~]+", url):
        raise UserError(
            f"{url!r}: not an address; it must begin with http:// or https:// and hold no spaces "
            "or letters that addresses don't have (write those as %20 and the like)"
        )


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse what won't fit on the disk of an existing `folder`; `needed` in bytes."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise UserError(
            f"{folder}: {purpose} takes {show_size(needed)}, {show_size(free)} are free there; "
            "make room or name another folder"
        )


def _gather(remote: RemoteFile, part: Path, patience: Patience, bar: tqdm) -> None:
    """Attempts until the part file is whole."""
    furthest = part.stat().st_size if part.exists() else 0
    fruitless = 0
    while True:
        try:
            return _attempt(remote, part, patience.stall, bar)
        except _Unfinished as end:
            reason, wait = str(end), end.wait
        except urllib.error.URLError as error:  # while connecting
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise UserError(f"{remote.url}: {error.reason}") from None
            reason, wait = str(error.reason), 0.0
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason, wait = str(error) or type(error).__name__, 0.0
        reached = part.stat().st_size if part.exists() else 0
        # A server that can't resume begins anew each time: that is no progress.
        fruitless = 0 if reached > furthest else fruitless + 1
        furthest = max(furthest, reached)
        if fruitless >= patience.attempts:
            raise UserError(
                f"{remote.url}: {fruitless} attempts in a row brought nothing more ({reason}); "
                f"{show_size(reached)} are kept: the same command goes on from there"
            )
        bar.set_postfix_str(f"again: {reason}"[:60])
        time.sleep(min(max(patience.pause * 2**fruitless, wait), LONGEST_PAUSE))


def _attempt(remote: RemoteFile, part: Path, stall: float, bar: tqdm) -> None:
    """One request, for what is missing in the part file."""
    known = _read_notes(part, remote)
    offset = part.stat().st_size if known else 0
    headers = {"User-Agent": "naq", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = _opener().open(
            urllib.request.Request(remote.url, headers=headers), timeout=stall
        )
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, remote, part, offset)
        return
    with response:
        begin, total = _extent(response.status, response.headers, remote)
        same = _identity(response.headers)
        if begin and not _goes_on(known, begin == offset, same, total):
            part.unlink()
            raise _Unfinished("the file on the server has changed")
        if response.headers.get_content_type() == "text/html":
            raise UserError(
                f"{remote.url}: is a web page, not a file; give the direct link to the file"
            )
        if remote.size is not None and total not in (None, remote.size):
            raise UserError(
                f"{remote.url}: {total} bytes are offered, {remote.size} are expected: another file"
            )
        check_space(part.parent, (total or remote.size or 0) - begin, f"fetching {part.stem}")
        if not begin:
            part.write_bytes(b"")
            write_json(_notes(part), {"url": remote.url, "same": same, "total": total})
        bar.total = total or remote.size
        bar.n = begin
        bar.refresh()
        with part.open("ab") as file:
            _copy(response, file, remote, total, bar)


def _copy(
    response: BinaryIO, file: BinaryIO, remote: RemoteFile, total: int | None, bar: tqdm
) -> None:
    """Append what comes to the part file, until all of it is there."""
    most = total if total is not None else remote.size
    try:
        # `read1` gives what has come so far, so that a stall loses none of it.
        while block := response.read1(BLOCK):
            file.write(block)
            bar.update(len(block))
            if most is not None and file.tell() > most:
                raise UserError(f"{remote.url}: gives more than the {most} bytes expected")
    finally:
        file.flush()
    if most is not None and file.tell() < most:
        raise _Unfinished(f"broke off at {show_size(file.tell())} of {show_size(most)}")


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS only, so that no redirection leads to a local file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _extent(status: int, headers: Message, remote: RemoteFile) -> tuple[int, int | None]:
    """The first byte that comes and the size of the whole file, if it is told."""
    if status == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        if told is None:
            raise UserError(f"{remote.url}: answers with a part of the file that it doesn't name")
        return int(told[1]), None if told[2] == "*" else int(told[2])
    if status != 200:
        raise UserError(f"{remote.url}: answers {status} instead of a file")
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _refused(error: urllib.error.HTTPError, remote: RemoteFile, part: Path, offset: int) -> None:
    """Return if the file is whole already; raise what an answer of 300 and up amounts to."""
    if error.code == 416:  # no bytes from this offset on
        told = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
        if told and int(told[1]) == offset:
            return
        part.unlink(missing_ok=True)
        raise _Unfinished("the file on the server is shorter than what came before")
    if error.code in PASSING or error.code >= 500:
        asked = error.headers.get("Retry-After", "")
        wait = float(asked) if asked.isdecimal() else 0.0
        raise _Unfinished(f"the server answers {error.code} {error.reason}", wait)
    hint = {401: "it needs a login", 403: "it is not public", 404: "no such file there"}
    raise UserError(
        f"{remote.url}: refused with {error.code} {error.reason}"
        + (f": {hint[error.code]}" if error.code in hint else "")
    )


def _goes_on(known: dict | None, fits: bool, same: str | None, total: int | None) -> bool:
    """Whether bytes that come are the continuation of those there are."""
    if known is None or not fits or known.get("same") != same:
        return False
    return None in (known.get("total"), total) or known["total"] == total


def _identity(headers: Message) -> str | None:
    """What tells one state of a file on a server from another."""
    return headers.get("ETag") or headers.get("Last-Modified")


def _notes(part: Path) -> Path:
    return Path(f"{part}.json")


def _read_notes(part: Path, remote: RemoteFile) -> dict | None:
    """What the bytes in the part file are of; None if there are none, or of another address."""
    try:
        notes = json.loads(_notes(part).read_bytes())
        fits = part.stat().st_size > 0 and notes["url"] == remote.url
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return notes if fits else None


def _misfit(path: Path, remote: RemoteFile) -> str | None:
    """In what a fetched file differs from what is known of it, or None."""
    size = path.stat().st_size
    if remote.size not in (None, size):
        return f"has {size} bytes instead of {remote.size}"
    if remote.sha256 is not None and _sha256(path) != remote.sha256.lower():
        return "has another checksum (sha256) than expected"
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with (
        path.open("rb") as file,
        tqdm(
            desc=f"checking {path.name}",
            total=path.stat().st_size,
            unit="B",
            unit_scale=True,
            leave=False,
        ) as bar,
    ):
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
