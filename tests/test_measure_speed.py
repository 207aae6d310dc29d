"""The count of operations, against convolutions counted by hand."""

from __future__ import annotations

from types import ModuleType

import keras
import pytest
from script import load_script

from mask_rcnn.config import config_from_dict
from mask_rcnn.model import Network


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("measure_speed")


def test_every_kind_of_layer(script: ModuleType) -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)  # 4 x 4 places of 3 x 3 x 3 x 4
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2DTranspose(5, 2, strides=2)(x)  # 4 x 4 places of 2 x 2 x 4 x 5
    x = keras.layers.Dense(6)(keras.layers.Flatten()(x))  # 8 x 8 x 5 x 6
    expected = 2 * (16 * 3 * 3 * 3 * 4 + 16 * 2 * 2 * 4 * 5 + 8 * 8 * 5 * 6)
    assert script._flops(keras.Model(image, x)) == expected


def test_of_a_network(script: ModuleType) -> None:
    small = {
        "image_size": 64, "backbone": "resnet14", "backbone_width": 4, "pyramid_channels": 8, "pyramid_output_channels": 8,
        "rpn_channels": 8, "box_head_channels": 16, "mask_head_channels": 8,
    }
    config = config_from_dict({"network": small, "proposals": {"inference_count": 10}, "detection": {"max_instances": 2}})
    parts = script.count_flops(Network(config))
    cells = 16**2 + 8**2 + 4**2 + 2**2 + 1
    assert parts["proposals"] == 2 * cells * (9 * 8 * 8 + 8 * 6 + 8 * 12)
    assert parts["boxes"] == 10 * 2 * (49 * 8 * 16 + 16 * 16 + 16 * 3 + 16 * 12)
    assert parts["masks"] == 2 * 2 * (14**2 * (4 * 9 * 8 * 8 + 4 * 8 * 8) + 28**2 * 8 * 3)
    assert parts["pyramid"] > 2 * 32**2 * 49 * 3 * 4
