"""The table of official weights: against Keras, the published counts, and what is not in it."""

import sys

import pytest

from keras_models import registry
from keras_models.checkpoints import official
from shufflelite.errors import InputError

KERAS_NETWORKS = {
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "mobilenet_v3_small": "MobileNetV3Small",
    "efficientnet_v2_b0": "EfficientNetV2B0",
}


@pytest.mark.parametrize("name", KERAS_NETWORKS)
def test_official_weights_are_those_that_keras_itself_downloads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tf_keras

    class AskedError(Exception):
        pass

    def get_file(name: str, origin: str, file_hash: str | None = None, **kwargs: object) -> None:
        raise AskedError(origin, file_hash)

    build = getattr(tf_keras.applications, KERAS_NETWORKS[name])
    monkeypatch.setattr(sys.modules[build.__module__].data_utils, "get_file", get_file)
    keys = [key for key in official.OFFICIAL if key[0] == name]
    for _, resolution, fixed in {keys[0], keys[-1]}:  # each takes a second to build
        options = dict(fixed)
        arguments = {"alpha" if key == "width" else key: options[key] for key in options}
        with pytest.raises(AskedError) as request:
            build(input_shape=(resolution, resolution, 3), **arguments)
        remote = official.find(name, resolution=resolution, options=options)
        assert (remote.url, remote.digest) == request.value.args
        assert remote.algorithm == "md5" or remote.digest is None
        tf_keras.backend.clear_session()


def test_every_official_file_is_of_a_published_variant() -> None:
    for name, resolution, fixed in official.OFFICIAL:
        published = [
            (p.resolution, p.options.items() <= dict(fixed).items())
            for p in registry.find(name).published
        ]
        assert (resolution, True) in published


def test_the_sizes_are_those_of_the_parameters() -> None:
    # Four bytes each; statistics of batch norms and the names add a few percent.
    for (name, _, fixed), remote in official.OFFICIAL.items():
        sizes_mb = [
            4e-6 * p.params
            for p in registry.find(name).published
            if p.options.items() <= dict(fixed).items()
        ]
        assert any(remote.size_mb == pytest.approx(s, rel=0.08, abs=0.6) for s in sizes_mb)


def test_every_official_file_has_a_hash_or_a_kind_and_plausible_sizes() -> None:
    for remote in official.OFFICIAL.values():
        assert remote.digest or remote.kind
        least, most = remote.sizes
        assert 0 < least < remote.size_mb * 1e6 < most < 1.8 * remote.size_mb * 1e6 + 1e6
    for name, size in (("mobilenet_v1", 17_225_924), ("mobilenet_v2", 14_536_120)):
        # as Keras shows it when it downloads them
        least, most = official.find(name, resolution=224, options={}).sizes
        assert least < size < most


def test_options_left_open_are_those_of_the_builder() -> None:
    default = official.find("mobilenet_v3_large", resolution=224, options={})
    assert default.url.endswith("v3_large_224_1.0_float.h5")
    assert default == official.find(
        "mobilenet_v3_large", resolution=224, options={"width": None, "stem": None}
    )
    minimalistic = official.find(
        "mobilenet_v3_large", resolution=224, options={"minimalistic": True}
    )
    assert minimalistic.url.endswith("v3_large_minimalistic_224_1.0_float.h5")


@pytest.mark.parametrize(
    ("name", "resolution", "options", "message"),
    [
        (
            "mobilenet_v1",
            224,
            {"width": 0.3},
            "mobilenet_v1 width=0.3 at 224 has no official ImageNet weights; there are: width=1.0 "
            "at 224, 192, 160, 128; width=0.75 at ",
        ),
        ("efficientnet_v2_s", 224, {}, "efficientnet_v2_s at 224 has no .* there are: at 384."),
        ("alexnet", 224, {}, "alexnet has no official ImageNet weights that can be downloaded."),
    ],
)
def test_the_message_for_networks_without_official_weights_lists_those_with_some(
    name: str, resolution: int, options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        official.find(name, resolution=resolution, options=options)
