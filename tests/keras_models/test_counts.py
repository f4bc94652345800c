"""Parameters and multiply-adds of single layers, counted by hand."""

import tf_keras

from keras_models import counts
from keras_models.counts import StageCount


def test_counts_are_those_worked_out_by_hand() -> None:
    layers = tf_keras.layers
    inputs = x = layers.Input((8, 6, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="conv1")(x)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="stage2_unit1_dw")(x)
    x = layers.Conv2D(6, 1, groups=2, name="stage2_unit1_pw")(x)
    x = layers.ReLU(name="stage2_unit2_relu")(x)
    x = layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = layers.Dense(5, name="classifier")(x)
    counted = counts.count(tf_keras.Model(inputs, x))
    sizes = {c.name: (c.output_shape, c.params, c.multiply_adds) for c in counted}
    assert sizes == {
        "image": ((8, 6, 3), 0, 0),
        "conv1": ((4, 3, 4), 3 * 3 * 3 * 4, (4 * 3) * (3 * 3 * 3 * 4)),
        "conv1_bn": ((4, 3, 4), 4 + 4, 0),  # scale and offset, not the moving averages
        "stage2_unit1_dw": ((4, 3, 8), 3 * 3 * 4 * 2 + 8, (4 * 3) * (3 * 3 * 8)),
        "stage2_unit1_pw": ((4, 3, 6), 8 * 6 // 2 + 6, (4 * 3) * (8 * 6 // 2)),
        "stage2_unit2_relu": ((4, 3, 6), 0, 0),
        "global_pool": ((6,), 0, 0),
        "classifier": ((5,), 6 * 5 + 5, 6 * 5),
    }
    assert counts.total(counted) == (108 + 8 + 80 + 30 + 35, 1296 + 864 + 288 + 30)
    assert counts.by_stage(counted) == [
        StageCount("image", (8, 6, 3), 1, 1, 0, 0),
        StageCount("conv1", (4, 3, 4), 1, 2, 116, 1296),
        StageCount("stage2", (4, 3, 6), 2, 3, 110, 1152),
        StageCount("global_pool", (6,), 1, 1, 0, 0),
        StageCount("classifier", (5,), 1, 1, 35, 30),
    ]


def test_a_dense_layer_runs_at_each_position() -> None:
    inputs = tf_keras.Input((4, 3, 6))
    (_, dense) = counts.count(tf_keras.Model(inputs, tf_keras.layers.Dense(5)(inputs)))
    assert dense.multiply_adds == 4 * 3 * 6 * 5
