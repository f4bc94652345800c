"""The official ImageNet weights that can be downloaded, with their publishers' URLs and hashes."""

from collections.abc import Mapping
from typing import Any

from keras_models import registry
from shufflelite.download import RemoteFile
from shufflelite.errors import InputError
from shufflelite.file_kinds import HDF5

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_TORCHVISION = "https://download.pytorch.org/models"


def _key(name: str, resolution: int, **options: Any) -> tuple[str, int, frozenset[Any]]:
    return name, resolution, frozenset(options.items())


OFFICIAL = {
    **{  # Keras publishes no hashes of its MobileNet and MobileNetV2: kind and size are checked.
        _key("mobilenet_v1", resolution, width=width): RemoteFile(
            f"{_KERAS}/mobilenet/mobilenet_{text}_{resolution}_tf.h5", size_mb, kind=HDF5
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
        _key("mobilenet_v2", resolution, width=width): RemoteFile(
            f"{_KERAS}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_"
            f"{width}_{resolution}.h5",
            size_mb,
            kind=HDF5,
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
        _key(f"mobilenet_v3_{variant}", 224, width=width, minimalistic=minimalistic): RemoteFile(
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
        _key(f"efficientnet_v2_{text.strip('-')}", resolution): RemoteFile(
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
        _key("shufflenet_v2", 224, width=width): RemoteFile(
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


def find(name: str, *, resolution: int, options: Mapping[str, Any]) -> RemoteFile:
    """Returns the official weights of a network; raises InputError if there are none.

    Args:
      name: The network's name in the registry.
      resolution: Height and width of its images.
      options: Arguments of its builder; those that are None or absent have their defaults.
    """
    values = {**registry.defaults(name), **{k: v for k, v in options.items() if v is not None}}
    resolutions: dict[frozenset[Any], list[int]] = {}
    for (model, size, fixed), official in OFFICIAL.items():
        if model != name:
            continue
        if size == resolution and fixed <= values.items():
            return official
        resolutions.setdefault(fixed, []).append(size)
    deciding = {key for fixed in resolutions for key, _ in fixed}
    requested = _text({(key, value) for key, value in values.items() if key in deciding})
    available = "; ".join(
        f"{_text(fixed)}at {', '.join(map(str, sizes))}" for fixed, sizes in resolutions.items()
    )
    if not available:
        raise InputError(f"{name} has no official ImageNet weights that can be downloaded.")
    raise InputError(
        f"{name} {requested}at {resolution} has no official ImageNet weights; there are: "
        f"{available}."
    )


def _text(options: Any) -> str:
    return "".join(f"{key}={value} " for key, value in sorted(options))
