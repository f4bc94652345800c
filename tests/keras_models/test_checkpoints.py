"""Weights from files that Keras itself writes, into models, and back."""

import contextlib
import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras

from keras_models import checkpoints
from keras_models.checkpoints import files, load
from keras_models.images import datasets
from shufflelite import isolated
from shufflelite.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
TOY_WEIGHTS = {  # layer: its weights in the order of get_weights()
    "stem": ("kernel",),
    "stem_bn": ("beta", "moving_mean", "moving_variance"),
    "depthwise": ("depthwise_kernel", "bias"),
    "depthwise_bn": BATCH_NORM,
    "b_branch": ("kernel", "bias"),
    "a_branch": ("kernel",),
    "slope": ("alpha",),
    "classifier": ("kernel", "bias"),
}


def toy(keras: Any, *, classes: int = 3, nested: bool = False) -> Any:
    """A network with the layers whose weights Keras stores, all values random.

    Branch "b" comes before "a", so that no order but that of the layers gives their weights.
    """
    layers = keras.layers
    inputs = x = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(scale=False, name="stem_bn")(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    branches = [layers.Conv2D(4, 1, name="b_branch")(x)]
    branches.append(layers.Conv2D(4, 1, use_bias=False, name="a_branch")(x))
    x = layers.Add()(branches)
    x = layers.PReLU(name="slope")(x)
    if nested:
        x = keras.Model(inputs, x, name="backbone")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.1)(x)
    x = layers.Dense(classes, name="classifier")(x)
    model = keras.Model(inputs, x, name="toy")
    rng = np.random.default_rng(classes)
    model.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def expected_arrays(model: Any) -> dict[str, np.ndarray]:
    """Names what get_weights() returns, by the table above."""
    parts = [layer for layer in model.layers if hasattr(layer, "layers")] + [model]
    arrays: dict[str, np.ndarray] = {}
    for name, weights in TOY_WEIGHTS.items():
        layer = next(layer for part in parts for layer in part.layers if layer.name == name)
        arrays |= {
            f"{name}/{weight}": array
            for weight, array in zip(weights, layer.get_weights(), strict=True)
        }
    return arrays


def assert_same(actual: Any, expected: Any) -> None:
    assert sorted(actual) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.fixture(scope="module")
def keras_3() -> Any:
    return pytest.importorskip("keras", minversion="3.0", reason="Keras 3 is not installed")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ["model.h5", "model.hdf5", "model.keras", "only_weights.h5"])
def test_files_of_tf_keras_are_read(name: str, nested: bool, tmp_path: Path) -> None:
    model = toy(tf_keras, nested=nested)
    model.compile("adam", "mse")  # the optimizer's own variables are no weights
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 3)), verbose=0)
    if name == "only_weights.h5":
        model.save_weights(tmp_path / name)
    else:
        model.save(tmp_path / name, save_format="keras" if name == "model.keras" else "h5")
    assert_same(files.read(tmp_path / name), expected_arrays(model))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_files_of_keras_3_are_read(name: str, nested: bool, tmp_path: Path, keras_3: Any) -> None:
    model = toy(keras_3, nested=nested)
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 3)), verbose=0)
    model.save(tmp_path / name)
    assert_same(files.read(tmp_path / name), expected_arrays(model))


def test_weights_h5_of_keras_3_is_read_by_its_layers_names(tmp_path: Path, keras_3: Any) -> None:
    model = small_keras_3(keras_3)
    model.save_weights(tmp_path / "x.weights.h5")
    kernel, bias, *batch_norm = model.get_weights()
    expected = {"second/kernel": kernel, "second/bias": bias}
    expected |= {f"bn/{name}": array for name, array in zip(BATCH_NORM, batch_norm, strict=True)}
    assert_same(files.read(tmp_path / "x.weights.h5"), expected)


def small_keras_3(keras: Any) -> Any:
    inputs = x = keras.layers.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 1, name="second")(x)
    return keras.Model(inputs, keras.layers.BatchNormalization(name="bn")(x))


@pytest.mark.parametrize("container", ["layers", "_layer_checkpoint_dependencies"])
@pytest.mark.parametrize("nested", [False, True])
def test_weights_h5_of_tf_keras_has_no_names_but_finds_its_layers(
    nested: bool, container: str, tmp_path: Path
) -> None:
    # Without a configuration nobody can tell which weights scale=False left out.
    trained, fresh = (with_scaled_stem_bn(toy(tf_keras, nested=nested)) for _ in range(2))
    fresh.set_weights([np.zeros_like(array) for array in fresh.get_weights()])
    trained.save_weights(tmp_path / "x.weights.h5")
    with h5py.File(tmp_path / "x.weights.h5", "a") as file:
        if nested:
            file.move("layers/functional/layers", f"layers/functional/{container}")
        file.move("layers", container)
    arrays = files.read(tmp_path / "x.weights.h5")
    assert all(name.startswith("layers/") for name in arrays)

    load.load_weights(fresh, arrays, origin="x")

    for actual, expected in zip(fresh.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def with_scaled_stem_bn(model: Any) -> Any:
    """Rebuilds `model` with a scaled batch norm behind its stem."""
    config = model.get_config()
    for layer in config["layers"]:
        inner = layer["config"].get("layers", [])
        for entry in [layer, *inner]:
            if entry["config"]["name"] == "stem_bn":
                entry["config"]["scale"] = True
    rebuilt = type(model).from_config(config)
    rng = np.random.default_rng(1)
    rebuilt.set_weights([rng.normal(size=w.shape) for w in rebuilt.get_weights()])
    return rebuilt


def test_weights_h5_of_tf_keras_refuses_to_guess_gamma_or_beta(tmp_path: Path) -> None:
    toy(tf_keras).save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(
        InputError, match=r"expected 4 weights of batch_normalization .* as \.keras"
    ):
        files.read(tmp_path / "x.weights.h5")


def test_layer_lists_beyond_hdf5_s_64_kilobytes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tf_keras.src.saving.legacy import hdf5_format

    monkeypatch.setattr(hdf5_format, "HDF5_OBJECT_HEADER_LIMIT", 150)
    model = toy(tf_keras)
    model.save_weights(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert "layer_names1" in file.attrs
    assert_same(files.read(tmp_path / "x.h5"), expected_arrays(model))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_save_is_read_back_and_writes_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    model = toy(tf_keras)
    first, second = tmp_path / "new" / f"a{suffix}", tmp_path / f"b{suffix}"
    load.save(model, first)
    load.save(model, second)
    assert first.read_bytes() == second.read_bytes()
    assert_same(files.read(first), expected_arrays(model))
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_save_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stream: Any, **arrays: np.ndarray) -> None:
        stream.write(b"half")
        raise OSError("No space left on device")

    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space left"):
        load.save(toy(tf_keras), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_refuses_other_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a name that ends in \.safetensors or \.npz"):
        load.save(toy(tf_keras), tmp_path / "x.h5")


def complete(kind: str, folder: Path) -> bytes:
    path = folder / f"complete{kind}"
    model = toy(tf_keras)
    if kind in (".npz", ".safetensors"):
        load.save(model, path)
    elif kind == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", [".h5", ".keras", ".npz", ".safetensors"])
def test_damaged_files_are_one_line(kind: str, tmp_path: Path) -> None:
    content = complete(kind, tmp_path)
    path = tmp_path / f"x{kind}"
    for damaged in (b"", b"<html>Not Found</html>", content[:100], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            files.read(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: expected ")
        assert f"these {len(damaged)} bytes are incomplete or something else" in message
        assert "\n" not in message


@pytest.mark.parametrize("kind", [".h5", ".keras", ".npz", ".safetensors"])
def test_flipped_bytes_never_raise_anything_else(kind: str, tmp_path: Path) -> None:
    content = np.frombuffer(complete(kind, tmp_path), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = content.copy()
        damaged[rng.integers(0, min(len(damaged), 4000), 20)] = rng.integers(0, 256, 20)
        (tmp_path / f"x{kind}").write_bytes(damaged.tobytes())
        with contextlib.suppress(InputError):
            files.read_here(tmp_path / f"x{kind}")


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.h5, \.hdf5, \.keras, \.npz, \.safetensors"):
        files.read(tmp_path / "x.onnx")
    with pytest.raises(InputError, match="found nothing of that name"):
        files.read(tmp_path / "x.h5")
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(InputError, match="expected a file of weights, found a folder"):
        files.read(tmp_path / "folder.keras")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["dataset"] = [1.0]
    with pytest.raises(InputError, match="expected the weights of Keras layers, found none"):
        files.read(tmp_path / "x.h5")
    np.savez(tmp_path / "x.npz")
    with pytest.raises(InputError, match="expected weights, found none"):
        files.read(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **{"conv1/kernel": np.array(["text"])})
    with pytest.raises(InputError, match="expected numbers in conv1/kernel, got <U4"):
        files.read(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **{"conv1/kernel": np.array([print])})
    with pytest.raises(InputError, match="expected numbers in conv1/kernel, got object"):
        files.read(tmp_path / "x.npz")


def test_layers_without_known_weights_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/lambda_1/vars/0"] = [1.0]
    with pytest.raises(InputError, match="lambda_1 is no layer whose weights can be named"):
        files.read(tmp_path / "x.weights.h5")


@pytest.mark.parametrize("link", ["soft", "external", "dataset"])
def test_hdf5_that_points_elsewhere_is_refused(link: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(8))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["layers/dense/vars/0"] = [1.0]
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        if link == "soft":
            file["layers/dense/vars/1"] = h5py.SoftLink("/layers")
        elif link == "external":
            file["layers"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/layers")
        else:
            file.create_dataset(
                "layers/dense/vars/0", (2,), "f4", external=[(str(tmp_path / "secret"), 0, 8)]
            )
    with pytest.raises(InputError, match=r"is a link|is no array within this file"):
        files.read(tmp_path / "x.weights.h5")


MOST = 1 << 20  # bytes of arrays in the test below


def bombs(folder: Path) -> dict[Path, str]:
    """Small files that declare more than any weights have, and what is wrong with them."""

    def h5(name: str) -> h5py.File:
        return h5py.File(folder / f"{name}.h5", "w")

    with h5("links") as file:
        array = file.create_dataset("layers/dense/vars/0", data=np.zeros(MOST, "i1"))
        for number in range(1, 3):
            file[f"layers/dense_{number}/vars/0"] = array
    with h5("dag") as file:
        inner = file.create_group("pool")
        for _ in range(60):
            outer = file.create_group(f"{inner.name}_")
            outer["layers/dense"] = outer["layers/dense_1"] = inner
            inner = outer
        file["layers"] = inner
    with h5("cycle") as file:
        file["layers/dense/layers"] = file["/"]
    with h5("vlen") as file:
        kind = h5py.vlen_dtype(np.dtype("f4"))
        file.create_dataset("layers/dense/vars/0", (2,), kind)[0] = np.zeros(9)
    with h5("aliases") as file:
        file["l/k"] = np.zeros(MOST, "i1")
        file.attrs["layer_names"] = ["l"]
        file["l"].attrs["weight_names"] = ["k", "./k"]
    with h5("json") as file:
        file.attrs.create("model_config", "[" * (1 << 24), dtype=h5py.string_dtype())
        file.attrs["layer_names"] = ["l"]
    with h5("empty") as file:
        file.create_dataset("layers/dense/vars/0", (1 << 31,), "f4", chunks=(1024,))
    with zipfile.ZipFile(folder / "config.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(1 << 24))
    np.savez_compressed(folder / "sum.npz", **{str(n): np.zeros(MOST, "i1") for n in range(2)})
    for name, shape in (("shape", "1 << 40, 0x100"), ("negative", "-1 << 40, 1 << 40")):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({eval(shape)})}}".encode()
        with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive:
            npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)
            archive.writestr("a.npy", npy)
    with zipfile.ZipFile(folder / "many.npz", "w") as archive:
        for number in range(10_001):
            archive.writestr(f"{number}.npy", b"")
    header = b'{"__metadata__": {"a": "' + b"[" * (9 << 20) + b'"}}'
    (folder / "long.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with (folder / "sparse.safetensors").open("wb") as stream:
        stream.truncate(3 << 30)
    return {
        folder / "links.h5": "0 is a second name, which no Keras weights have",
        folder / "dag.h5": "is a second name",
        folder / "cycle.h5": "layers is a second name",
        folder / "vlen.h5": "expected numbers in 0, got object",
        folder / "aliases.h5": f"but the sum of its arrays has {2 * MOST}",
        folder / "json.h5": "expected at most 8388608 bytes of JSON, got 16777216",
        folder / "empty.h5": "0 declares 8589934592 bytes, which this file does not hold",
        folder / "config.keras": "expected at most 8388608 bytes of JSON",
        folder / "sum.npz": f"but the sum of its arrays has {2 * MOST}",
        folder / "many.npz": "expected at most 10000 arrays, got 10001",
        folder / "shape.npz": "bytes, which this file does not hold",
        folder / "negative.npz": "bytes, which this file does not hold",
        folder / "long.safetensors": "expected a header of at most 8388608 bytes, got 9437",
        folder / "sparse.safetensors": "but the file has 3221225472",
    }


def test_bombs_are_refused_before_their_arrays_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", MOST)
    for path, reason in bombs(tmp_path).items():
        tracemalloc.start()
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{re.escape(reason)}"):
            files.read(path)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20, path
        tracemalloc.stop()


def test_load_assigns_every_array() -> None:
    source, target = toy(tf_keras, classes=3), toy(tf_keras, classes=3)
    target.set_weights([np.zeros_like(array) for array in target.get_weights()])
    arrays = {name: array.astype(np.float64) for name, array in expected_arrays(source).items()}
    load.load_weights(target, arrays, origin="x.npz")
    assert len(arrays) == len(source.get_weights()) == 16
    for actual, expected in zip(target.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_load_refuses_another_network_s_weights_and_changes_nothing() -> None:
    model = toy(tf_keras)
    before = model.get_weights()
    arrays = {name: array + 1 for name, array in expected_arrays(model).items()}
    for name in ("stem/kernel", "stem_bn/beta", "slope/alpha", "depthwise/bias"):
        del arrays[name]
    arrays |= {
        "extra/kernel": np.zeros(1, np.float32),
        "classifier/kernel": np.zeros((4, 5), np.float32),
        "a_branch/kernel": np.zeros((1, 1, 4, 4), np.int8),
    }
    with pytest.raises(InputError) as caught:
        load.load_weights(model, arrays, origin="x.h5")
    assert str(caught.value) == (
        "x.h5: expected the 16 arrays of toy, got 13: "
        "4 missing (stem/kernel; stem_bn/beta; depthwise/bias; ...), 1 left over (extra/kernel), "
        "1 of another shape (classifier/kernel: (4, 5) instead of (4, 3)), "
        "1 of another type (a_branch/kernel: int8 instead of float32). "
        "Are these the weights of another network or width?"
    )
    for actual, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_other_weights_keep_their_names(tmp_path: Path) -> None:
    model = toy(tf_keras)
    load.save(model, tmp_path / "x.safetensors")
    weights = checkpoints.read_weights(tmp_path / "x.safetensors")
    assert_same(weights.arrays, expected_arrays(model))
    assert (weights.source, weights.preprocessing) == (None, None)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development pictures and weights")
def test_imported_imagenet_weights_recognize_photographs() -> None:
    from keras_models.mobilenet_v1 import mobilenet_v1

    weights = checkpoints.read_weights(SHARED / "mobilenet_v1_0.25_224_imagenet.h5")
    assert weights.preprocessing is not None
    model = mobilenet_v1(width=0.25)
    load.load_weights(model, weights.arrays, origin="shared")
    pictures = datasets.load(
        str(SHARED / "photos" / "labels.csv"),
        resolution=224,
        preprocessing=weights.preprocessing,
        seed=0,
        warn=pytest.fail,
    )
    assert isinstance(pictures.pixels, np.ndarray)
    inputs = weights.preprocessing.to_input(pictures.pixels)
    correct = (model.predict(inputs, verbose=0).argmax(axis=1) == pictures.labels).sum()
    assert len(inputs) == 200
    # 123 of 200.  JPEG decoders differ by a level here and there, which moves a few pictures at
    # most; stretching the pictures to a square gives 115, BGR gives 97.
    assert 119 <= correct <= 127


def test_a_file_with_which_hdf5_comes_to_no_end_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = tmp_path / "x.h5", b'{"config": {"layers": []}}'
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"a"]
        file.attrs["model_config"] = text.decode()
    content = path.read_bytes()
    position = content.index(text)  # what follows it in the heap says where the heap ends
    path.write_bytes(content[:position] + bytes(64) + content[position + 64 :])
    monkeypatch.setattr(isolated, "TIMEOUT_S", 3.0)
    with pytest.raises(InputError, match=r"x\.h5: HDF5 hangs on it: damaged"):
        files.read(path)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", b"no magic here")
    with pytest.raises(InputError, match=r"x\.npz: expected numbers in a, got no array"):
        files.read(tmp_path / "x.npz")


def test_a_reason_that_quotes_the_file_is_cut(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        content = archive.read("a.npy")
    header = content[10:-16].replace(b"(2,)", b"(2,) + [" + b"x" * 5000 + b"]")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", content[:8] + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError) as caught:
        files.read(tmp_path / "x.npz")
    assert len(str(caught.value)) < len(str(tmp_path)) + 500
