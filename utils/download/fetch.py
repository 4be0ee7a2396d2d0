"""One file from the web: resumed where it stopped, retried, and there whole or not at all.

Bytes are gathered in `<file>.part`; `<file>.version` holds the name of the version they are of. The
rest is requested on the condition (`If-Range`) that the server still has it. A server that names no
version (neither `ETag` nor `Last-Modified`) sends the file from its beginning.
"""

import hashlib
import http.client
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

from tqdm import tqdm

from utils.base.errors import UserError, in_brief
from utils.base.tables import show_size
from utils.download.manifest import RemoteFile

BLOCK = 1 << 20  # bytes read at once
RESERVE = 64 << 20  # bytes of a disk that are left free
ATTEMPTS = 6  # in a row that may bring no further byte
PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds after the first of these, doubled after each
STALL = 60.0  # seconds without a byte after which an attempt ends
PASSING = (408, 416, 425, 429)  # answers to try again after; so are all of 500 and up
BROKEN = (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError,
          ValueError, OverflowError)  # fmt: skip  # the last two: redirected to no address


def fetch(remote: RemoteFile, path: Path) -> None:
    """Bring a file to `path`; one that is there is kept.

    Raises UserError if the server refuses, sends something else than expected, or brings no
    further byte in several attempts, or if the disk is too full. Bytes so far are kept, unless they
    are of another size or checksum than expected.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part, version = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.version")
    furthest, fruitless = _size(part), 0
    with tqdm(desc=f"fetching {path.name}", unit="B", unit_scale=True, leave=False) as bar:
        while reason := _attempt(remote, part, version, bar):
            # A server that can't resume starts over each time: that is no progress.
            fruitless = 0 if _size(part) > furthest else fruitless + 1
            furthest = max(furthest, _size(part))
            if fruitless >= ATTEMPTS:
                raise UserError(
                    f"{remote.url}: {fruitless} attempts in a row brought nothing more ({reason}); "
                    f"the same command goes on from {show_size(_resumable(part, version))}"
                )
            pause = min(PAUSE * 2**fruitless, LONGEST_PAUSE)
            bar.write(f"{path.name}: {reason}; trying again in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
    _check(part, remote)
    part.replace(path)
    version.unlink(missing_ok=True)


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Raises UserError if `needed` bytes do not fit on the disk of an existing folder."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise UserError(
            f"{folder}: {purpose} takes {show_size(needed)}, {show_size(free)} are free there; "
            "make room or name another folder"
        )


def _attempt(remote: RemoteFile, part: Path, version: Path, bar: tqdm) -> str:
    """One request for what the part lacks; returns why it ended early, or an empty text."""
    headers = {"User-Agent": "naq", "Accept-Encoding": "identity"}
    if offset := _resumable(part, version):
        headers |= {"Range": f"bytes={offset}-", "If-Range": version.read_text()}
    request = urllib.request.Request(remote.url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=STALL) as response:
            return _receive(response, remote, part, version, bar)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500 and error.code not in PASSING:
            raise UserError(f"{remote.url}: answers {error.code} {error.reason}") from None
        if error.code == 416:  # the part is not shorter than the file
            part.unlink(missing_ok=True)
        return f"the server answers {error.code} {error.reason}"
    except BROKEN as error:
        return in_brief(getattr(error, "reason", error))


def _receive(
    response: http.client.HTTPResponse, remote: RemoteFile, part: Path, version: Path, bar: tqdm
) -> str:
    """Append a response to the part, or replace the part if it is the whole file."""
    begin, total = _extent(response.headers, response.status == 206)
    tag = response.headers.get("ETag", "")
    served = response.headers.get("Last-Modified", "") if tag[:2] in ("", "W/") else tag
    if begin and (begin != _size(part) or served not in ("", version.read_text())):
        part.unlink()
        return "the server resumes another version of the file"
    if response.headers.get_content_type() == "text/html":
        raise UserError(f"{remote.url}: is a web page; give the direct link to the file")
    check_space(part.parent, (total or 0) - begin, f"fetching {part.stem}")
    if not begin:
        part.unlink(missing_ok=True)
        version.write_text(served)
    bar.total, bar.n = total or remote.size, begin
    limit = total or remote.size or shutil.disk_usage(part.parent).free - RESERVE
    with part.open("ab") as file:
        # `read1` returns what has come so far, so that a stall loses none of it.
        while block := response.read1(BLOCK):
            file.write(block)
            bar.update(len(block))
            if file.tell() > limit:
                part.unlink()
                raise UserError(
                    f"{remote.url}: sends more than {show_size(limit)}, which is all that is "
                    "expected or has room on the disk"
                )
        size = file.tell()
    broke_off = total is not None and size < total
    return f"broke off at {show_size(size)} of {show_size(total)}" if broke_off else ""


def _extent(headers: Message, is_part: bool) -> tuple[int, int | None]:
    """The first byte that comes, and the size of the whole file if the server says it."""
    if is_part:
        extent = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18})", headers.get("Content-Range", ""))
        if extent is None:
            raise ConnectionError("the server does not say which part of the file it sends")
        return int(extent[1]), int(extent[2])
    length = headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _resumable(part: Path, version: Path) -> int:
    """Bytes of the part that can be continued: 0 if their version is not known."""
    return _size(part) if _size(version) else 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check(part: Path, remote: RemoteFile) -> None:
    """Delete a fetched file of another size or checksum than expected, and raise UserError."""
    with part.open("rb") as file:
        sha256 = remote.sha256 and hashlib.file_digest(file, "sha256").hexdigest()
    if remote.size not in (None, _size(part)):
        fault = f"has {_size(part)} bytes instead of {remote.size}"
    elif sha256 != (remote.sha256 and remote.sha256.lower()):
        fault = "has another checksum (sha256) than expected"
    else:
        return
    part.unlink()
    raise UserError(f"{remote.url}: {fault}; it was deleted: another file, or damaged on its way")
