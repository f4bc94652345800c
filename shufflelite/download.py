"""Downloads files once, into the user's cache: whole and with the published hash, or not at all."""

import contextlib
import errno
import hashlib
import http
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import BinaryIO
from urllib.request import OpenerDirector

from shufflelite import atomic, file_kinds, http_deadline, lock
from shufflelite.display import one_line
from shufflelite.errors import InputError

LIMIT_S = 3600.0  # of a download in all
SILENCE_S = 60.0  # of a server
UNKNOWN_SIZES = (100_000, 500_000_000)  # bytes: no official file has fewer or more
_CHUNK = 1 << 16
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _OtherRangeError(OSError):
    """The server has not sent the range that was asked for."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on its publisher's server.

    Attributes:
      url: Its address.
      size_mb: Its approximate size in millions of bytes; None: not known.
      digest: Its hash in hexadecimal, or the first digits of it; None: not published.
      algorithm: The hash's name in hashlib.
      kind: What it is, of file_kinds; None: only its hash tells.
    """

    url: str
    size_mb: int | None = None
    digest: str | None = None
    algorithm: str = "sha256"
    kind: str | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """The least and the greatest number of bytes that it may have."""
        if self.size_mb is None:
            return UNKNOWN_SIZES
        return int(0.85e6 * (self.size_mb - 0.5)), int(1.15e6 * (self.size_mb + 0.5))


def cache_folder() -> Path:
    """Returns the folder of this program's downloads, by the XDG base directory rules."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "shufflelite"


def download(remote: RemoteFile, *, folder: Path | None = None, limit_s: float = LIMIT_S) -> Path:
    """Returns the path of `remote` in `folder` (default: the cache); downloads it if absent.

    The next call resumes a download that breaks off, where a published hash can prove the result.

    Args:
      remote: The file.
      folder: Of the downloads.
      limit_s: How long it may take in all.

    Raises:
      InputError: No network, no such file, a broken download, or a file of another kind, size or
        hash.
    """
    path = (folder or cache_folder()) / remote.url.rsplit("/", 1)[-1]
    if not path.is_file():
        with exclusive(path.parent):
            if not path.is_file():  # another process may have fetched it meanwhile
                _fetch(remote, path, limit_s=limit_s)
                return path
    _check(path, remote, f"delete {path} to download it again")
    return path


@contextlib.contextmanager
def exclusive(folder: Path, *, on_busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Makes `folder`, and waits until no other process works in it; see `lock.exclusive`."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.exclusive(folder / ".lock", on_busy=on_busy))
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be made or written in ({error.strerror}); set XDG_CACHE_HOME to "
                "another folder."
            ) from error
        yield


def _fetch(remote: RemoteFile, path: Path, *, limit_s: float) -> None:
    part = path.with_name(f"{path.name}.part")
    size = f" (about {remote.size_mb} MB)" if remote.size_mb else ""
    by_hand = (
        f"download it{size} with a browser, on another machine if this one is offline, and save "
        f"it as {path}"
    )
    if part.is_symlink():
        part.unlink()
    try:
        _receive(remote, part, limit_s=limit_s)
        _check(part, remote, f"try again, or {by_hand}")
        part.replace(path)
    except InputError:  # something else: the part is no beginning of the file
        part.unlink(missing_ok=True)
        raise
    # ValueError is what the standard library raises on some addresses and headers.
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise InputError(
                f"{path.parent}: too little room for {remote.url}{size} ({error.strerror}); free "
                "some, or set XDG_CACHE_HOME to another folder, and try again."
            ) from error
        reason = getattr(error, "reason", error)  # urllib wraps the socket's own error
        if isinstance(error, IncompleteRead):
            reason = "the connection broke off"
        elif isinstance(error, urllib.error.HTTPError):
            reason = f"HTTP status {error.code} {error.reason}"
        advice = "try again to continue, or " if remote.digest and part.is_file() else ""
        raise InputError(
            f"{remote.url}: cannot be downloaded ({one_line(reason)}); {advice}{by_hand}."
        ) from error
    finally:
        if remote.digest is None:  # nothing would prove that a resumed file is whole
            part.unlink(missing_ok=True)


def _receive(remote: RemoteFile, part: Path, *, limit_s: float) -> None:
    """Appends the rest of the file to `part`, or starts again where the server sends all of it."""
    start = atomic.part_size(part)
    with http_deadline.opener(limit_s) as opener:
        try:
            _receive_from(start, opener, remote, part)
        except _OtherRangeError:
            if not start:
                raise
            part.unlink()  # whole already, or not of this file
            _receive_from(0, opener, remote, part)


def _receive_from(start: int, opener: OpenerDirector, remote: RemoteFile, part: Path) -> None:
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(remote.url, headers=headers)
    try:
        with opener.open(request, timeout=SILENCE_S) as response:
            resumes = _resumes(response, start)
            with atomic.open_part(part, append=resumes) as stream:
                _copy(response, stream, remote)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _OtherRangeError(f"HTTP status {error.code} {error.reason}") from error
        raise


def _resumes(response: HTTPResponse, start: int) -> bool:
    """Whether the rest from `start` on comes, not the whole file; raises OSError for neither."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise OSError(f"it came encoded as {encoding!r}, which was not asked for")
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise OSError("a web page came, such as the login page of a network")
    if response.status == http.HTTPStatus.OK:
        return False
    came = response.headers.get("Content-Range", "")
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        raise OSError(f"expected HTTP status 200, got {response.status}")
    if not start or not re.match(rf"bytes {start}-[0-9]+/", came):
        raise _OtherRangeError(f"bytes from {start} on were asked for, {came!r} came")
    return True


def _copy(response: HTTPResponse, stream: BinaryIO, remote: RemoteFile) -> None:
    announced, received, most = response.length, 0, remote.sizes[1] - stream.tell()
    while announced is None or received < announced:
        # read() would wait for all bytes it was asked for, however slowly they come.
        chunk = response.read1(_CHUNK if announced is None else min(_CHUNK, announced - received))
        if not chunk:
            break
        received += len(chunk)
        if received > most:
            raise OSError(f"expected at most {remote.sizes[1]} bytes, more came")
        stream.write(chunk)
    if announced is not None and received < announced:
        raise IncompleteRead(b"", announced - received)


def _check(path: Path, remote: RemoteFile, advice: str) -> None:
    """Raises InputError if the file has another size, kind or hash."""
    size, (least, most) = path.stat().st_size, remote.sizes
    if not least <= size <= most:
        raise InputError(f"{remote.url}: expected {least} to {most} bytes, got {size}; {advice}.")
    if remote.kind and (problem := file_kinds.problem(path, remote.kind)):
        raise InputError(f"{remote.url}: expected {problem}; {advice}.")
    if remote.digest is None:
        return
    with path.open("rb") as stream:
        hashed = hashlib.new(remote.algorithm, usedforsecurity=False)
        while chunk := stream.read(1 << 20):
            hashed.update(chunk)
    actual = hashed.hexdigest()
    if not actual.startswith(remote.digest):
        name = {"sha256": "SHA-256", "md5": "MD5"}.get(remote.algorithm, remote.algorithm)
        raise InputError(f"{remote.url}: expected {name} {remote.digest}, got {actual}; {advice}.")
