"""Downloads files once, into the user's cache: whole and with the published hash, or not at all."""

import contextlib
import errno
import hashlib
import http
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from pathlib import Path

from shufflelite import lock
from shufflelite.errors import InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class RemoteFile:
    """A file on its publisher's server.

    Attributes:
      url: Its address.
      size_mb: Its approximate size in millions of bytes.
      digest: Its hash in hexadecimal, or the first digits of it; None: not published.
      algorithm: The hash's name in hashlib.
    """

    url: str
    size_mb: int | None = None
    digest: str | None = None
    algorithm: str = "sha256"


def cache_folder() -> Path:
    """Returns the folder of this program's downloads, by the XDG base directory rules."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "shufflelite"


def download(remote: RemoteFile, *, folder: Path | None = None, timeout_s: float = 60.0) -> Path:
    """Returns the path of `remote` in `folder` (default: the cache); downloads it if absent.

    The next call resumes a download that breaks off, where a published hash can prove the result.

    Raises:
      InputError: No network, no such file, a broken download, or a file with another hash.
    """
    path = (folder or cache_folder()) / remote.url.rsplit("/", 1)[-1]
    if not path.is_file():
        with exclusive(path.parent):
            if not path.is_file():  # another process may have fetched it meanwhile
                _fetch(remote, path, timeout_s=timeout_s)
                return path
    _check_hash(path, remote, f"delete {path} to download it again")
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


def _fetch(remote: RemoteFile, path: Path, *, timeout_s: float) -> None:
    part = path.with_name(f"{path.name}.part")
    size = f" (about {remote.size_mb} MB)" if remote.size_mb else ""
    by_hand = (
        f"download it{size} with a browser, on another machine if this one is offline, and save "
        f"it as {path}"
    )
    try:
        _receive(remote.url, part, timeout_s=timeout_s)
        _check_hash(part, remote, f"try again, or {by_hand}")
        part.replace(path)
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise InputError(
                f"{path.parent}: too little room for {remote.url}{size} ({error.strerror}); free "
                "some, or set XDG_CACHE_HOME to another folder, and try again."
            ) from error
        reason = getattr(error, "reason", error)  # urllib wraps the socket's own error
        if isinstance(error, IncompleteRead):
            reason = "the connection broke off"
        advice = "try again to continue, or " if remote.digest and part.is_file() else ""
        raise InputError(
            f"{remote.url}: cannot be downloaded ({reason}); {advice}{by_hand}."
        ) from error
    except InputError:  # another hash: the part is no beginning of the file
        part.unlink()
        raise
    finally:
        if remote.digest is None:  # nothing would prove that a resumed file is whole
            part.unlink(missing_ok=True)


def _receive(url: str, part: Path, *, timeout_s: float) -> None:
    """Appends the rest of the file to `part`, or starts again where the server sends all of it."""
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
            with part.open("ab" if resumes else "wb") as stream:
                shutil.copyfileobj(response, stream)
            if response.length:
                raise IncompleteRead(b"", response.length)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        part.unlink()  # whole already, or not of this file
        _receive(url, part, timeout_s=timeout_s)


def _check_hash(path: Path, remote: RemoteFile, advice: str) -> None:
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
