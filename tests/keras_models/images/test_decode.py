"""Pictures of every kind against pixels known beforehand."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_models.images import decode, lists
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError

WHOLE = Preprocessing(crop_fraction=1.0)
WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)
SIZE = 4
CASES = Path(__file__).parent / "cases"


def solid(mode: str, color: Any) -> Image.Image:
    return Image.new(mode, (SIZE, SIZE), color)


def grey16(mode: str = "I;16") -> Image.Image:
    """Has 0, 1 * 257, 2 * 257, ... as 16-bit samples, that is 0, 1, 2, ... as 8-bit ones."""
    samples = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 257 * 17
    return Image.frombytes(mode, (SIZE, SIZE), samples.astype("<u2").tobytes())


def palette(*, transparent: bool) -> Image.Image:
    image = solid("P", 1)
    image.putpalette([*BLUE, *RED])
    if transparent:
        image.info["transparency"] = 1
    return image


def read(path: Path) -> np.ndarray:
    return decode.load_picture(path, resolution=SIZE, preprocessing=WHOLE)


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (solid("RGB", RED), "x.png", RED),
        (solid("L", 200), "x.png", (200, 200, 200)),
        (solid("1", 1), "x.png", WHITE),
        (palette(transparent=False), "x.png", RED),
        (palette(transparent=True), "x.png", WHITE),
        (palette(transparent=True), "x.gif", WHITE),
        (solid("RGBA", (255, 0, 0, 0)), "x.png", WHITE),
        (solid("RGBA", (255, 0, 0, 51)), "x.png", (255, 204, 204)),  # a fifth of red over white
        (solid("RGBA", (255, 0, 0, 51)), "x.webp", (255, 204, 204)),
        (solid("LA", (0, 0)), "x.png", WHITE),
        (solid("CMYK", (0, 255, 255, 0)), "x.tif", RED),
        (solid("CMYK", (0, 0, 0, 255)), "x.tif", BLACK),
        (solid("CMYK", (0, 255, 255, 0)), "x.jpg", RED),
        (solid("RGB", BLUE), "x.bmp", BLUE),
        (solid("RGB", BLUE), "x.ppm", BLUE),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_each_mode_becomes_rgb(
    image: Image.Image, name: str, expected: tuple[int, ...], tmp_path: Path
) -> None:
    options: dict = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    image.save(tmp_path / name, **options)
    np.testing.assert_array_equal(
        read(tmp_path / name), np.full((SIZE, SIZE, 3), expected, np.uint8)
    )


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.ppm"])
def test_16_bit_grey_is_scaled_and_not_clipped(name: str, tmp_path: Path) -> None:
    grey16().save(tmp_path / name)
    expected = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE, 1) * 17
    np.testing.assert_array_equal(read(tmp_path / name), np.repeat(expected, 3, axis=2))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16"])
@pytest.mark.parametrize("shape", [(700, 900), (300, 41), (35, 2000), (64, 56)])
def test_a_large_picture_gives_the_pixels_of_a_small_one(
    mode: str, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "RGBA":
        image.putalpha(image.convert("L"))
    elif mode == "P":
        image = image.quantize(64, dither=Image.Dither.NONE)
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.png", exif=exif)
    preprocessing = Preprocessing(interpolation="bicubic")
    expected = decode.load_picture(tmp_path / "x.png", resolution=32, preprocessing=preprocessing)
    monkeypatch.setattr(decode, "LARGE", 100)
    monkeypatch.setattr(decode, "_BAND", 5000)
    actual = decode.load_picture(tmp_path / "x.png", resolution=32, preprocessing=preprocessing)
    # Reduced to three times the resolution, a picture as coarse as photographs are is off by 1.
    np.testing.assert_allclose(actual.astype(int), expected.astype(int), atol=2)
    assert np.abs(actual.astype(int) - expected).mean() < 0.3


def test_a_large_jpeg_is_decoded_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(coarse).resize((900, 700)).save(tmp_path / "x.jpg", quality=95)
    expected = decode.load_picture(tmp_path / "x.jpg", resolution=32, preprocessing=WHOLE)
    monkeypatch.setattr(decode, "LARGE", 100)
    monkeypatch.setattr(decode, "_BAND", 5000)
    actual = decode.load_picture(tmp_path / "x.jpg", resolution=32, preprocessing=WHOLE)
    np.testing.assert_allclose(actual.astype(int), expected.astype(int), atol=3)


def test_a_webp_that_takes_too_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solid("RGB", RED).save(tmp_path / "x.webp")
    solid("RGB", RED).save(tmp_path / "x.png")
    monkeypatch.setattr(decode, "WEBP_LARGEST", SIZE * SIZE - 1)
    with pytest.raises(InputError, match=r"x\.webp: WebP of more than .*; save it as JPEG or PNG$"):
        read(tmp_path / "x.webp")
    read(tmp_path / "x.png")


def test_89_million_16_bit_pixels_need_little_memory(tmp_path: Path) -> None:
    code = (
        "import re, sys; from keras_models.images import decode\n"
        "pixels = decode.load_picture(\n"
        "    sys.argv[1], resolution=224, preprocessing=decode.Preprocessing())\n"
        "status = open('/proc/self/status').read()\n"  # ru_maxrss may be that of the parent
        "print(pixels.max(), re.search(r'VmHWM:\\s*(\\d+)', status)[1])\n"
    )
    command = [sys.executable, "-c", code, str(CASES / "g16.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    brightest, kilobytes = map(int, done.stdout.split())
    assert brightest == 0
    assert kilobytes < 500_000  # 0.18 GB of it is the picture


def test_postscript_under_a_picture_s_name_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=r"eps_cat\.jpg: cannot be decoded \(cannot identify"):
        read(CASES / "eps_cat.jpg")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "PDF", "EPS", "DDS"])
def test_kinds_that_are_not_listed_are_not_opened(kind: str, tmp_path: Path) -> None:
    solid("RGB", RED).save(tmp_path / "x.png", kind)
    with pytest.raises(InputError, match="cannot identify image file"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("mode", "value", "reason"), [("F", 0.5, "floating-point"), ("I", 70_000, "32-bit")]
)
def test_samples_without_a_defined_white_are_refused(
    mode: str, value: float, reason: str, tmp_path: Path
) -> None:
    solid(mode, value).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=f"x.tif: {reason} samples have no defined white"):
        read(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (3, lambda x: x[::-1, ::-1]),
        (6, lambda x: np.rot90(x, -1)),
        (8, np.rot90),
        (2, lambda x: x[:, ::-1]),
    ],
)
def test_exif_rotation_is_applied(orientation: int, turned: Callable, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "x.png"), turned(stored))


def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    solid("RGB", WHITE).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    np.testing.assert_array_equal(read(tmp_path / "x.jpg"), 255)


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.png"])
def test_animations_give_their_first_frame(name: str, tmp_path: Path) -> None:
    frames = [solid("RGB", RED), solid("RGB", BLUE)]
    options: dict = {"lossless": True} if name == "x.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read(tmp_path / name)[0, 0], RED)


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (90, 86), (41, 300)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_is_torchvision_s(shape: tuple[int, int], interpolation: str, tmp_path: Path) -> None:
    height, width = shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    # torchvision's Resize(64), the longer side truncated, then CenterCrop(56)
    long = int(64 * max(shape) / min(shape))
    resized = Image.fromarray(pixels).resize(
        (64, long) if width < height else (long, 64), decode.INTERPOLATIONS[interpolation]
    )
    left, top = (round((side - 56) / 2) for side in resized.size)
    expected = np.asarray(resized.crop((left, top, left + 56, top + 56)))

    actual = decode.load_picture(
        tmp_path / "x.png", resolution=56, preprocessing=Preprocessing(interpolation=interpolation)
    )

    # Pillow keeps the filter's window in floats: now and then a value rounds the other way.
    np.testing.assert_allclose(actual.astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize(
    ("size", "interpolation", "digest"),
    [  # of Pillow 13's own resize; that of 11.3 gives others for the tall picture
        ((45, 131), "bilinear", "ffaeafe8857589a8"),
        ((45, 131), "bicubic", "450318d487e3b744"),
        ((131, 45), "bilinear", "f4cc336a19a5d2fa"),
        ((131, 45), "bicubic", "ee43fa1bc058f7da"),
    ],
)
def test_bytes_do_not_depend_on_pillow_s_version(
    size: tuple[int, int], interpolation: str, digest: str
) -> None:
    x, y = np.meshgrid(*map(np.arange, size))
    channels = (x * x * 7 + y * 13, x * 31 + y * y * 3, x * y * 5 + 11)
    picture = Image.fromarray((np.stack(channels, axis=-1) % 256).astype(np.uint8))
    preprocessing = Preprocessing(interpolation=interpolation)
    pixels = decode.resize_and_crop(picture, resolution=32, preprocessing=preprocessing)
    assert hashlib.sha256(pixels.tobytes()).hexdigest().startswith(digest)


def test_a_long_panorama_is_cropped_before_it_is_enlarged(tmp_path: Path) -> None:
    pixels = np.zeros((1, 50_000, 3), np.uint8)  # resized whole it would be 256 x 12,800,000
    pixels[:, 25_000:] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    picture = decode.load_picture(tmp_path / "x.png", resolution=224, preprocessing=Preprocessing())
    # The crop is 0.875 pixels wide, across the edge between black and white.
    assert picture[:, 0].max() < 0.1 * 255
    assert picture[:, -1].min() > 0.9 * 255


def test_to_input_is_keras_tf_mode_by_default() -> None:
    pixels = np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    expected = np.arange(256)[:, None, None, None] / 127.5 - 1
    actual = Preprocessing().to_input(pixels)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected.repeat(3, axis=-1), atol=6e-8)  # half an ulp of 1


def test_to_input_takes_mean_and_std_in_the_network_s_channel_order() -> None:
    caffe = Preprocessing(mean=(103.5, 116.5, 123.5), std=(1.0, 2.0, 4.0), channel_order="bgr")
    rgb = np.array([[[[200, 100, 50]]]], np.uint8)
    np.testing.assert_array_equal(caffe.to_input(rgb), [[[[-53.5, -8.25, 19.125]]]])


@pytest.mark.parametrize(
    "wrong",
    [
        {"std": (1.0, 0.0, 1.0)},
        {"channel_order": "RGB"},
        {"crop_fraction": 1.2},
        {"interpolation": "lanczos"},
    ],
)
def test_preprocessing_refuses_what_it_cannot_do(wrong: dict) -> None:
    with pytest.raises(InputError, match="Expected"):
        Preprocessing(**wrong)


def save_pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        solid("RGB", (number, 0, 0)).save(folder / name)


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_unreadable_pictures_are_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    save_pictures(tmp_path, "a.png", "f.png")
    (tmp_path / "b.jpg").write_bytes(encoded(noise, "JPEG")[:-500])
    (tmp_path / "c.png").write_bytes(encoded(noise, "PNG")[:-5000])
    (tmp_path / "d.png").write_text("<html>404</html>")
    solid("RGB", RED).resize((100, 101)).save(tmp_path / "e.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # e.png has 10,100: "a bomb"
    files = lists.find(tmp_path).files
    warnings: list[str] = []

    pixels, decoded = decode.read_files(
        files, resolution=SIZE, preprocessing=WHOLE, warn=warnings.append
    )

    assert decoded == [0, 5]
    assert pixels[:, 0, 0].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert [line.partition(": ")[0] for line in warnings] == [f"skipped {f}" for f in files[1:5]]
    for line, reason in zip(warnings, ("truncated", "truncated", "identify", "bomb"), strict=True):
        assert reason in line
        assert "\n" not in line


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"None of the 1 pictures can be decoded; first: .*a\.png"):
        decode.read_files(
            [tmp_path / "a.png"], resolution=SIZE, preprocessing=WHOLE, warn=lambda _: None
        )


def test_npz_holds_decoded_pictures(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(6, dtype=np.int16))
    pixels, labels = decode.read_npz(tmp_path / "x.npz", resolution=SIZE)
    assert labels is not None
    assert (labels.dtype, labels.tolist()) == (np.int64, list(range(6)))
    np.testing.assert_array_equal(pixels, images)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": np.zeros((1, 4, 4, 3), "f4")}, "expected uint8 'images' .* found inputs"),
        ({"images": np.zeros((1, 4, 4, 3), "f4")}, r"got float32 \(1, 4, 4, 3\); store pixels be"),
        ({"images": np.zeros((1, 8, 8, 3), "u1")}, r"\(n, 4, 4, 3\), got uint8 \(1, 8, 8, 3\)"),
        ({"images": np.zeros((0, 4, 4, 3), "u1")}, r"got uint8 \(0, 4, 4, 3\)"),
        ({"images": np.array([None])}, "expected an .npz file"),  # pickled
        ({"images": np.zeros((2, 4, 4, 3), "u1"), "labels": np.zeros(3, "i8")}, "expected 2 inte"),
        ({"images": np.zeros((1, 4, 4, 3), "u1"), "labels": np.array([-1])}, "'labels' >= 0"),
    ],
)
def test_npz_of_something_else_is_refused(arrays: dict, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=message):
        decode.read_npz(tmp_path / "x.npz", resolution=SIZE)


def test_npz_members_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((2, SIZE, SIZE, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("labels.npy", b"no magic here")
    with pytest.raises(InputError, match=r"expected 2 integer 'labels' >= 0, got \|S13 \(\)"):
        decode.read_npz(tmp_path / "x.npz", resolution=SIZE)


def test_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"text"):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"expected an \.npz file"):
            decode.read_npz(tmp_path / "x.npz", resolution=SIZE)
    with (tmp_path / "x.npz").open("wb") as stream:
        np.save(stream, np.zeros((1, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(InputError, match=r"expected an \.npz file"):
        decode.read_npz(tmp_path / "x.npz", resolution=SIZE)


def test_digest_tells_shapes_and_values_apart() -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    other = pixels.copy()
    other[1, 3, 3, 2] = 1
    same = np.asfortranarray(pixels)
    digests = [decode.digest(x) for x in (pixels, same, other, pixels.reshape(4, 2, 4, 3))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
