"""Official ImageNet weights, downloaded once into the user's cache."""

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from keras_models.checkpoints.atomic import replacing
from keras_models.errors import InputError


@dataclass(frozen=True)
class Official:
    """A file of weights on its publisher's server, and its SHA-256 where that is known."""

    url: str
    sha256: str | None = None


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
OFFICIAL = {  # (family, width, resolution)
    ("mobilenet_v1", width, resolution): Official(
        f"{_KERAS}/mobilenet/mobilenet_{text}_{resolution}_tf.h5"
    )
    for width, text in ((1.0, "1_0"), (0.75, "7_5"), (0.5, "5_0"), (0.25, "2_5"))
    for resolution in (224, 192, 160, 128)
}


def find(family: str, *, width: float, resolution: int) -> Official:
    """Returns the official weights of a network; raises InputError where there are none."""
    official = OFFICIAL.get((family, width, resolution))
    if official is None:
        known = [f"width {w} at {r}" for name, w, r in OFFICIAL if name == family]
        raise InputError(
            f"{family} of width {width} at {resolution} has no official ImageNet weights; "
            f"there are: {', '.join(known) or 'none of this family'}."
        )
    return official


def cache_folder() -> Path:
    """Returns the folder of this program's downloads, by the XDG base directory rules."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "shufflelite"


def download(official: Official, *, folder: Path | None = None, timeout_s: float = 60.0) -> Path:
    """Returns the path of `official` in `folder` (default: the cache); downloads what is absent."""
    path = (folder or cache_folder()) / official.url.rsplit("/", 1)[-1]
    if path.is_file():
        _check_hash(path, official, f"delete {path} to download it again")
        return path
    by_hand = f"download it by hand and save it as {path}"
    with replacing(path) as temporary:
        try:
            with (
                urllib.request.urlopen(official.url, timeout=timeout_s) as response,
                temporary.open("wb") as stream,
            ):
                shutil.copyfileobj(response, stream)
                announced = response.headers["Content-Length"]
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            reason = getattr(error, "reason", error)  # urllib wraps the socket's own error
            raise InputError(
                f"{official.url}: cannot be downloaded ({reason}); {by_hand}."
            ) from error
        received = temporary.stat().st_size
        if announced is not None and received != int(announced):
            raise InputError(
                f"{official.url}: expected {announced} bytes, received {received}; try again, or "
                f"{by_hand}."
            )
        _check_hash(temporary, official, f"try again, or {by_hand}")
    return path


def _check_hash(path: Path, official: Official, advice: str) -> None:
    if official.sha256 is None:
        return
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != official.sha256:
        raise InputError(
            f"{official.url}: expected SHA-256 {official.sha256}, got {actual}; {advice}."
        )
