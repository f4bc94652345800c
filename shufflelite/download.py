"""Official ImageNet weights, downloaded once into the user's cache."""

import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_models import registry
from shufflelite import lock
from shufflelite.errors import InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Official:
    """A file of weights on its publisher's server.

    Attributes:
      url: Where it is.
      size_mb: About how large it is, in millions of bytes.
      digest: Its hash in hexadecimal, or the first digits, where its publisher tells them.
      algorithm: Which hash, by its name in hashlib.
    """

    url: str
    size_mb: int | None = None
    digest: str | None = None
    algorithm: str = "sha256"


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_TORCHVISION = "https://download.pytorch.org/models"


def _key(name: str, resolution: int, **options: Any) -> tuple[str, int, frozenset[Any]]:
    return name, resolution, frozenset(options.items())


OFFICIAL = {
    **{  # Keras tells no hashes of its MobileNet and MobileNetV2.
        _key("mobilenet_v1", resolution, width=width): Official(
            f"{_KERAS}/mobilenet/mobilenet_{text}_{resolution}_tf.h5", size_mb
        )
        for width, text, size_mb in (
            (1.0, "1_0", 17),
            (0.75, "7_5", 10),
            (0.5, "5_0", 5),
            (0.25, "2_5", 2),
        )
        for resolution in (224, 192, 160, 128)
    },
    **{
        _key("mobilenet_v2", resolution, width=width): Official(
            f"{_KERAS}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_"
            f"{width}_{resolution}.h5",
            size_mb,
        )
        for width, size_mb, resolutions in (
            (1.4, 25, (224,)),
            (1.3, 22, (224,)),
            (1.0, 14, (224, 192, 160, 128, 96)),
            (0.75, 11, (224, 192, 160, 128, 96)),
            (0.5, 8, (224, 192, 160, 128, 96)),
            (0.35, 7, (224, 192, 160, 128, 96)),
        )
        for resolution in resolutions
    },
    **{
        _key(f"mobilenet_v3_{variant}", 224, width=width, minimalistic=minimalistic): Official(
            f"{_KERAS}/mobilenet_v3/weights_mobilenet_v3_{variant}"
            f"{'_minimalistic' if minimalistic else ''}_224_{width}_float.h5",
            size_mb,
            md5,
            "md5",
        )
        for variant, width, minimalistic, size_mb, md5 in (
            ("large", 1.0, False, 22, "59e551e166be033d707958cf9e29a6a7"),
            ("large", 0.75, False, 16, "765b44a33ad4005b3ac83185abf1d0eb"),
            ("large", 1.0, True, 16, "675e7b876c45c57e9e63e6d90a36599c"),
            ("small", 1.0, False, 10, "8768d4c2e7dee89b9d02b2d03d65d862"),
            ("small", 0.75, False, 8, "cb65d4e5be93758266aa0a7f2c6708b7"),
            ("small", 1.0, True, 8, "99cd97fb2fcdad2bf028eb838de69e37"),
        )
    },
    **{
        _key(f"efficientnet_v2_{text.strip('-')}", resolution): Official(
            f"{_KERAS}/efficientnet_v2/efficientnetv2{text}.h5", size_mb, md5, "md5"
        )
        for text, resolution, size_mb, md5 in (
            ("-b0", 224, 29, "21ecbf6da12460d5c40bb2f29ceb2188"),
            ("-b1", 240, 34, "069f0534ff22adf035c89e2d9547a9dc"),
            ("-b2", 260, 42, "424e49f28180edbde1e94797771950a7"),
            ("-b3", 300, 59, "1f1fc43bd98a6e4fd8fdfd551e02c7a0"),
            ("-s", 384, 88, "e1d88a8495beba45748fedd0cecbe016"),
            ("-m", 480, 220, "a3bf6aa3276309f4fc6a34aa114c95cd"),
            ("-l", 480, 479, "27e6d408b53c7ebc868fefa357689935"),
        )
    },
    **{  # The names end in the first digits of the SHA-256.
        _key("shufflenet_v2", 224, width=width): Official(
            f"{_TORCHVISION}/shufflenetv2_{text}-{digits}.pth", size_mb, digits
        )
        for width, text, size_mb, digits in (
            (0.5, "x0.5", 6, "f707e7126e"),
            (1.0, "x1", 9, "5666bf0f80"),
            (1.5, "x1_5", 14, "3c479a10"),
            (2.0, "x2_0", 30, "8be3c8ee"),
        )
    },
}


def find(name: str, *, resolution: int, options: Mapping[str, Any]) -> Official:
    """Returns the official weights of a network; raises InputError where there are none.

    Args:
      name: The network's name in the registry.
      resolution: Height and width of its images.
      options: Arguments of its builder; those that are None or absent have their defaults.
    """
    given = {**registry.defaults(name), **{k: v for k, v in options.items() if v is not None}}
    known: dict[frozenset[Any], list[int]] = {}
    for (model, size, fixed), official in OFFICIAL.items():
        if model != name:
            continue
        if size == resolution and fixed <= given.items():
            return official
        known.setdefault(fixed, []).append(size)
    choosing = {key for fixed in known for key, _ in fixed}
    chosen = _text({(key, value) for key, value in given.items() if key in choosing})
    there_are = "; ".join(
        f"{_text(fixed)}at {', '.join(map(str, sizes))}" for fixed, sizes in known.items()
    )
    if not there_are:
        raise InputError(f"{name} has no official ImageNet weights that can be downloaded.")
    raise InputError(
        f"{name} {chosen}at {resolution} has no official ImageNet weights; there are: {there_are}."
    )


def cache_folder() -> Path:
    """Returns the folder of this program's downloads, by the XDG base directory rules."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "shufflelite"


def download(official: Official, *, folder: Path | None = None, timeout_s: float = 60.0) -> Path:
    """Returns the path of `official` in `folder` (default: the cache); downloads what is absent.

    A download that breaks off is continued by the next call.

    Raises:
      InputError: No network, no such file, a broken download, or a file with another hash.
    """
    path = (folder or cache_folder()) / official.url.rsplit("/", 1)[-1]
    if not path.is_file():
        with alone_in(path.parent):
            if not path.is_file():  # another process may have fetched it meanwhile
                _fetch(official, path, timeout_s=timeout_s)
                return path
    _check_hash(path, official, f"delete {path} to download it again")
    return path


@contextlib.contextmanager
def alone_in(folder: Path, busy: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Makes `folder`, and waits until no other process works in it; `busy` is told of one."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.alone(folder / ".lock", busy))
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be made or written in ({error.strerror}); set XDG_CACHE_HOME to "
                "another folder."
            ) from error
        yield


def _fetch(official: Official, path: Path, *, timeout_s: float) -> None:
    """Downloads to `path`; continues what an earlier call left in a file beside it."""
    part = path.with_name(f"{path.name}.part")
    version = path.with_name(f"{path.name}.part.version")  # says of what `part` is the beginning
    size = f" (about {official.size_mb} MB)" if official.size_mb else ""
    by_hand = (
        f"download it{size} with a browser, on another machine if this one is offline, and save "
        f"it as {path}"
    )
    try:
        expected = _receive(official.url, part, version, timeout_s=timeout_s)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise InputError(
                f"{path.parent}: too little room for {official.url}{size} ({error.strerror}); free "
                "some, or set XDG_CACHE_HOME to another folder, and try again."
            ) from error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", error)  # urllib wraps the socket's own error
        if isinstance(error, http.client.IncompleteRead):
            reason = "the connection broke off"
        advice = "try again to continue, or " if _resumable(part, version) else ""
        raise InputError(
            f"{official.url}: cannot be downloaded ({reason}); {advice}{by_hand}."
        ) from error
    received = part.stat().st_size
    if expected is not None and received != expected:
        advice = "to continue" if _resumable(part, version) else "once more"
        raise InputError(
            f"{official.url}: expected {expected} bytes, received {received}; try again {advice}, "
            f"or {by_hand}."
        )
    try:
        _check_hash(part, official, f"try again, or {by_hand}")
    except InputError:
        part.unlink()
        raise
    finally:
        version.unlink(missing_ok=True)
    part.replace(path)


def _receive(url: str, part: Path, version: Path, *, timeout_s: float) -> int | None:
    """Appends to `part`, or begins anew where it cannot; returns the size of the whole."""
    start = _resumable(part, version)
    # If-Range: only if the file is still the one that we have the beginning of, else all of it.
    headers = {"Range": f"bytes={start}-", "If-Range": version.read_text()} if start else {}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout_s
        )
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        error.close()
        part.unlink()
        return _receive(url, part, version, timeout_s=timeout_s)
    with response:
        continues = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if not (start and response.status == http.HTTPStatus.PARTIAL_CONTENT and continues):
            start = 0
            _note_version(response.headers, version)
        with part.open("ab" if start else "wb") as stream:
            shutil.copyfileobj(response, stream)
        announced = response.headers["Content-Length"]
    return None if announced is None else start + int(announced)


def _resumable(part: Path, version: Path) -> int:
    """How many bytes of a download can be continued; removes those that cannot."""
    if not version.is_file():
        part.unlink(missing_ok=True)
    return part.stat().st_size if part.is_file() else 0


def _note_version(headers: Any, version: Path) -> None:
    etag = headers.get("ETag", "")
    # RFC 9110, 13.1.5: a weak validator says that the meaning is the same, not the bytes.
    identity = headers.get("Last-Modified") if etag.startswith("W/") or not etag else etag
    if identity:
        version.write_text(identity)
    else:
        version.unlink(missing_ok=True)


def _check_hash(path: Path, official: Official, advice: str) -> None:
    if official.digest is None:
        return
    hashed = hashlib.new(official.algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hashed.update(chunk)
    actual = hashed.hexdigest()
    if not actual.startswith(official.digest):
        name = {"sha256": "SHA-256", "md5": "MD5"}.get(official.algorithm, official.algorithm)
        raise InputError(
            f"{official.url}: expected {name} {official.digest}, got {actual}; {advice}."
        )


def _text(options: Any) -> str:
    return "".join(f"{key}={value} " for key, value in sorted(options))
