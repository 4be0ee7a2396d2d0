"""One file from the web: resumed where it stopped, retried, checked, and there whole or not at all.

Bytes are gathered in `<file>.part`; `<file>.part.json` says which version of the file they are of.
The rest is requested on the condition (`If-Range`) that the server still has that version. A server
that names no version (neither `ETag` nor `Last-Modified`) sends the file from its beginning.
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
from typing import Any

from tqdm import tqdm

from utils.base.errors import UserError, in_brief
from utils.base.files import write_json
from utils.base.tables import show_size

BLOCK = 1 << 20  # bytes read at once
RESERVE = 64 << 20  # bytes of a disk that are left free
LONGEST_PAUSE = 60.0  # seconds between attempts
PASSING = (408, 416, 425, 429)  # answers to try again after; so are all of 500 and up
BROKEN = (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError,
          ssl.SSLError)  # fmt: skip
HINTS = {401: ": it needs a login", 403: ": it is not public", 404: ": there is no such file"}


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch, and what is known of it."""

    url: str
    size: int | None = None  # bytes
    sha256: str | None = None


def fetch(
    remote: RemoteFile, path: Path, attempts: int = 6, pause: float = 1.0, stall: float = 60.0
) -> None:
    """Bring a file to `path`; one that is there is kept.

    Args:
        attempts: how many in a row may bring no further byte.
        pause: seconds after the first of these, doubled after each.
        stall: seconds without a byte after which an attempt ends.

    Raises:
        UserError: the address is refused or gives something else, the disk is too full, or the
            server brings no further byte in several attempts; bytes so far are kept, unless they
            are of another size or checksum than expected.
    """
    check_url(remote.url)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(f"{path}.part")
    furthest, fruitless = _size(part), 0
    with tqdm(desc=f"fetching {path.name}", unit="B", unit_scale=True, leave=False) as bar:
        while reason := _attempt(remote, part, stall, bar):
            # A server that cannot resume begins anew each time: that is no progress.
            fruitless = 0 if _size(part) > furthest else fruitless + 1
            furthest = max(furthest, _size(part))
            if fruitless >= attempts:
                begin = (
                    show_size(_size(part)) if _read_version(part).get("name") else "its beginning"
                )
                raise UserError(
                    f"{remote.url}: {fruitless} attempts in a row brought nothing more ({reason}); "
                    f"the same command goes on from {begin}"
                )
            bar.set_postfix_str(f"again: {reason}"[:60])
            time.sleep(min(pause * 2**fruitless, LONGEST_PAUSE))
    _check(part, remote)
    part.replace(path)
    _version_file(part).unlink(missing_ok=True)


def check_url(url: str) -> None:
    """Raises UserError if the text does not look like an address of the web."""
    if not re.fullmatch(r"https?://[A-Za-z0-9\[][!-~]*", url):
        raise UserError(
            f"{url!r}: not an address; it must begin with http:// or https:// and hold no spaces "
            "or letters that addresses don't have (write those as %20 and the like)"
        )


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Raises UserError if `needed` bytes do not fit on the disk of an existing folder."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise UserError(
            f"{folder}: {purpose} takes {show_size(needed)}, {show_size(free)} are free there; "
            "make room or name another folder"
        )


def _attempt(remote: RemoteFile, part: Path, stall: float, bar: tqdm) -> str:
    """One request for what the part file lacks; returns why it ended early, or an empty text."""
    try:
        _request_rest(remote, part, stall, bar)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500 and error.code not in PASSING:
            hint = HINTS.get(error.code, "")
            raise UserError(f"{remote.url}: answers {error.code} {error.reason}{hint}") from None
        if error.code == 416:  # the part is longer than the file
            part.unlink(missing_ok=True)
        return f"the server answers {error.code} {error.reason}"
    except (http.client.InvalidURL, ValueError, OverflowError) as error:
        raise UserError(f"{remote.url}: leads to an invalid address ({in_brief(error)})") from None
    except BROKEN as error:
        return in_brief(getattr(error, "reason", error))
    return ""


def _request_rest(remote: RemoteFile, part: Path, stall: float, bar: tqdm) -> None:
    version = _read_version(part)
    offset = _size(part) if version.get("name") else 0
    if offset and offset == version["total"]:
        return  # stopped after the last byte
    headers = {"User-Agent": "naq", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version["name"]}
    request = urllib.request.Request(remote.url, headers=headers)
    with urllib.request.urlopen(request, timeout=stall) as response:
        begin, total = _extent(response.headers, response.status == 206)
        served = {"name": _version_name(response.headers), "total": total}
        same = total == version.get("total") and served["name"] in (None, version.get("name"))
        if begin and not (begin == offset and same):
            part.unlink(missing_ok=True)
            raise ConnectionError("the server resumes another version of the file")
        if response.headers.get_content_type() == "text/html":
            raise UserError(f"{remote.url}: is a web page; give the direct link to the file")
        check_space(part.parent, (total or 0) - begin, f"fetching {part.stem}")
        if not begin:
            part.unlink(missing_ok=True)
            write_json(_version_file(part), served)
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
            if total is not None and file.tell() < total:
                raise ConnectionError(
                    f"broke off at {show_size(file.tell())} of {show_size(total)}"
                )


def _extent(headers: Message, is_part: bool) -> tuple[int, int | None]:
    """The first byte that comes, and the size of the whole file if the server says it."""
    if is_part:
        extent = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18})", headers.get("Content-Range", ""))
        if extent is None:
            raise ConnectionError("the server does not say which part of the file it sends")
        return int(extent[1]), int(extent[2])
    length = headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _version_name(headers: Message) -> str | None:
    """What tells a version of a file from another, byte for byte."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _version_file(part: Path) -> Path:
    return Path(f"{part}.json")


def _read_version(part: Path) -> dict[str, Any]:
    try:
        return json.loads(_version_file(part).read_bytes())
    except (OSError, ValueError):
        return {}


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
