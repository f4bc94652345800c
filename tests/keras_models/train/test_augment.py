"""Augmentation of batches: the laws of what is drawn for each picture."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_models.images.decode import Preprocessing
from keras_models.train import augment
from keras_models.train.randaugment import OPERATIONS, randaugment
from keras_models.train.settings import Augment

SIDE = 16
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def draw(count: int, *, step: int = 0, first: int = 0, local: int | None = None) -> augment.Draw:
    seed = tf.constant([5, step], tf.int64)
    return augment.Draw(seed, total=count, first=first, local=count if local is None else local)


def pictures(count: int, side: int = SIDE) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return np.stack(
        [
            np.asarray(Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC))
            for c in coarse
        ]
    )


def test_pad_crop_shifts_and_flips_each_picture_on_its_own() -> None:
    images = pictures(64)
    found = augment.augment(images, Augment(pad=2), SIDE, draw(64)).numpy()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=augment.GREY)
    seen = set()
    for index in range(64):
        for top, left, flip in itertools.product(range(5), range(5), (1, -1)):
            part = padded[index, top : top + SIDE, left : left + SIDE][:, ::flip]
            if np.array_equal(found[index], part):
                seen.add((top, left, flip))
                break
        else:
            pytest.fail(f"picture {index} is no shift of its own")
    assert {place[0] for place in seen} == {place[1] for place in seen} == set(range(5))
    assert {place[2] for place in seen} == {1, -1}


def test_nothing_to_draw_changes_nothing() -> None:
    images = pictures(4)
    found = augment.augment(images, Augment(crop="none", flip=False), SIDE, draw(4)).numpy()
    np.testing.assert_array_equal(found, images)


def test_resized_crops_are_parts_of_the_picture() -> None:
    rows, columns = np.mgrid[:64, :64]
    ramps = np.stack([rows, columns, 0 * rows], axis=-1)[None].repeat(200, 0).astype(np.uint8)
    settings = Augment(crop="resized", min_area=0.25, flip=True)
    found = augment.augment(ramps, settings, SIDE, draw(200)).numpy()
    height = found[:, -1, 0, 0] - found[:, 0, 0, 0]
    width = found[:, 0, -1, 1] - found[:, 0, 0, 1]
    area, aspect = height * abs(width) / 63**2, abs(width) / height
    assert (found.min(axis=(1, 2, 3)) >= 0).all()
    assert (found.max(axis=(1, 2, 3)) <= 63 + 1e-3).all()
    assert 0.2 < area.min() < 0.4 < 0.8 < area.max() <= 1 + 1e-5  # where a side is clipped: less
    assert 3 / 4 - 1e-3 < aspect.min() < 0.85 < 1.2 < aspect.max() < 4 / 3 + 1e-3
    assert 0.35 < (width < 0).mean() < 0.65


def test_cutout_covers_squares_everywhere() -> None:
    images = np.zeros((400, SIDE, SIDE, 3), np.uint8)
    settings = Augment(crop="none", flip=False, cutout=6)
    covered = augment.augment(images, settings, SIDE, draw(400)).numpy() == augment.GREY
    assert (covered == covered[..., :1]).all()
    rows, columns = (covered[..., 0].any(axis=axis).sum(axis=1) for axis in (2, 1))
    np.testing.assert_array_equal(covered[..., 0].sum(axis=(1, 2)), rows * columns)
    assert {int(n) for n in rows} == {3, 4, 5, 6}
    assert covered[..., 0].any(axis=0).all()


def test_mixup_mixes_pictures_and_targets_alike() -> None:
    images = np.random.default_rng(0).normal(size=(300, 2, 2, 3)).astype(np.float32)
    targets = np.eye(300, dtype=np.float32)
    mixed, soft = (v.numpy() for v in augment.mixup(images, targets, 0.4, draw(300)))
    np.testing.assert_allclose(mixed, np.einsum("ij,jhwc->ihwc", soft, images), atol=1e-5)
    part = soft.diagonal()
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
    assert abs(part.mean() - 0.5) < 0.08
    assert abs(part.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.03  # of beta(0.4, 0.4)


def test_normalize_is_what_converted_networks_get() -> None:
    preprocessing = Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), channel_order="bgr")
    images = pictures(3)
    found = augment.normalize(images, preprocessing).numpy()
    np.testing.assert_allclose(found, preprocessing.to_input(images), rtol=1e-6)


def test_workers_together_draw_what_one_does() -> None:
    images = pictures(8)
    settings = Augment(crop="pad", randaugment_layers=2, cutout=4)
    whole = augment.augment(images, settings, SIDE, draw(8)).numpy()
    parts = [
        augment.augment(images[i : i + 4], settings, SIDE, draw(8, first=i, local=4)).numpy()
        for i in (0, 4)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    again = augment.augment(images, settings, SIDE, draw(8)).numpy()
    other = augment.augment(images, settings, SIDE, draw(8, step=1)).numpy()
    np.testing.assert_array_equal(again, whole)
    assert (other != whole).any(axis=(1, 2, 3)).all()


def test_workers_together_mix_what_one_does() -> None:
    images, targets = tf.cast(pictures(8), tf.float32), tf.eye(8)
    whole = augment.mixup(images, targets, 0.4, draw(8))
    parts = [
        augment.mixup(images[i : i + 4], targets[i : i + 4], 0.4, draw(8, first=i, local=4))
        for i in (0, 4)
    ]
    for found, expected in zip(zip(*parts, strict=True), whole, strict=True):
        np.testing.assert_array_equal(tf.concat(found, axis=0), expected)
    assert ((np.asarray(whole[1]) > 0).sum(axis=1) == 2).all(), "each is of two pictures"


def test_the_last_of_an_odd_batch_mixes_with_none() -> None:
    _, targets = augment.mixup(tf.ones((3, 2, 2, 3)), tf.eye(3), 0.4, draw(3))
    np.testing.assert_allclose(targets[2], [0, 0, 1], rtol=1e-6)


def affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image:
    # Pillow counts from the corner of a pixel, TensorFlow from its middle.
    c, f = c + (1 - a - b) / 2, f + (1 - d - e) / 2
    return image.transform(
        image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR,
        fillcolor=(128, 128, 128),
    )  # fmt: skip


def by_pillow(image: Image.Image, name: str, strength: float, sign: int) -> Image.Image:
    center = (SIDE - 1) / 2
    angle = np.radians(30) * strength * sign
    shear, move = 0.3 * strength * sign, 150 / 331 * SIDE * strength * sign
    factor = 1 + 0.9 * strength * sign
    cos, sin = np.cos(angle), np.sin(angle)
    return {
        "identity": lambda: image,
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "rotate": lambda: affine(
            image, cos, -sin, center * (1 - cos + sin), sin, cos, center * (1 - cos - sin)
        ),
        "solarize": lambda: ImageOps.solarize(image, round(256 * (1 - strength))),
        "color": lambda: ImageEnhance.Color(image).enhance(factor),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * strength)),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "shear_x": lambda: affine(image, 1, shear, -center * shear, 0, 1, 0),
        "shear_y": lambda: affine(image, 1, 0, 0, shear, 1, -center * shear),
        "translate_x": lambda: affine(image, 1, 0, move, 0, 1, 0),
        "translate_y": lambda: affine(image, 1, 0, 0, 0, 1, move),
    }[name]()


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_randaugment_does_what_pillow_does(name: str, strength: float) -> None:
    images = pictures(2)
    found = randaugment(
        tf.constant(images, tf.float32),
        magnitude=10 * strength,
        operation=tf.constant([(OPERATIONS.index(name) + 0.5) / len(OPERATIONS)] * 2),
        negative=tf.constant([False, True]),
    ).numpy()
    for image, result, sign in zip(images, found, (1, -1), strict=True):
        expected = np.asarray(by_pillow(Image.fromarray(image), name, strength, sign), np.float32)
        inside = expected[1:-1, 1:-1], result[1:-1, 1:-1]  # at the border they fill otherwise
        # Pillow cuts off both what it blends with and the result.
        tolerance = 2 if name in ("color", "contrast", "sharpness") else 1
        away = np.abs(inside[0] - inside[1])
        assert np.mean(away <= tolerance) > (0.9 if name in MOVES else 0.999)
        if name != "identity":
            assert np.abs(result - image).max() > 2, "the operation does nothing"
