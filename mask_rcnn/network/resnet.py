"""The ResNet trunk and the feature pyramid over it.

Shapes (side s of the square, width w of the trunk)
    images    float32 [batch, s, s, 3], mean subtracted
    C2..C5    [batch, s / 4 .. s / 32, ..., 4 w .. 32 w], what the stages give
    P2..P6    [batch, s / 4 .. s / 64, ..., pyramid_output_channels]

Layer names are those of the reference checkpoints (``res2a_branch2a``, ``fpn_c5p5``), so that these load by name.
"""

from __future__ import annotations

import string

import keras
from keras import layers

from mask_rcnn.config import RESNET_BLOCKS, NetworkConfig
from mask_rcnn.network.normalisation import BatchNormalization


def build_pyramid(network: NetworkConfig) -> keras.Model:
    """Images to [P2, P3, P4, P5, P6].

    ResNet with bottlenecks (He et al., CVPR 2016), the stride in a block's first 1 x 1 convolution; the pyramid after
    Lin et al., CVPR 2017, its P6 a subsampled P5.
    """
    side = network.image_size
    images = keras.Input((side, side, 3), name="images")
    x = layers.ZeroPadding2D(3, name="conv1_pad")(images)
    x = layers.Conv2D(network.backbone_width, 7, strides=2, name="conv1")(x)
    x = BatchNormalization(name="bn_conv1")(x)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool1")(x)
    stages = []
    for index, count in enumerate(RESNET_BLOCKS[network.backbone]):
        filters = network.backbone_width * 2**index
        for block in string.ascii_lowercase[:count]:
            stride = 2 if block == "a" and index > 0 else 1
            x = _bottleneck(x, f"{index + 2}{block}", filters, stride)
        stages.append(x)
    c2, c3, c4, c5 = stages

    channels = network.pyramid_channels
    top = layers.Conv2D(channels, 1, name="fpn_c5p5")(c5)
    merged = [top]
    for level, stage in ((4, c4), (3, c3), (2, c2)):
        lateral = layers.Conv2D(channels, 1, name=f"fpn_c{level}p{level}")(stage)
        upsampled = layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(merged[0])
        merged.insert(0, layers.Add(name=f"fpn_p{level}add")([upsampled, lateral]))
    pyramid = [
        layers.Conv2D(network.pyramid_output_channels, 3, padding="same", name=f"fpn_p{level}")(feature)
        for level, feature in zip((2, 3, 4, 5), merged, strict=True)
    ]
    pyramid.append(layers.MaxPooling2D(1, strides=2, name="fpn_p6")(pyramid[-1]))
    return keras.Model(images, pyramid, name="pyramid")


def _bottleneck(x: keras.KerasTensor, name: str, filters: int, stride: int) -> keras.KerasTensor:
    shortcut = x
    if name.endswith("a"):
        shortcut = layers.Conv2D(4 * filters, 1, strides=stride, name=f"res{name}_branch1")(x)
        shortcut = BatchNormalization(name=f"bn{name}_branch1")(shortcut)
    x = layers.Conv2D(filters, 1, strides=stride, name=f"res{name}_branch2a")(x)
    x = layers.Activation("relu")(BatchNormalization(name=f"bn{name}_branch2a")(x))
    x = layers.Conv2D(filters, 3, padding="same", name=f"res{name}_branch2b")(x)
    x = layers.Activation("relu")(BatchNormalization(name=f"bn{name}_branch2b")(x))
    x = layers.Conv2D(4 * filters, 1, name=f"res{name}_branch2c")(x)
    x = layers.Add(name=f"res{name}_add")([BatchNormalization(name=f"bn{name}_branch2c")(x), shortcut])
    return layers.Activation("relu", name=f"res{name}_out")(x)


def build_proposal_head(network: NetworkConfig) -> keras.Model:
    """The region proposal network on one level: [batch, h, w, c] to class logits [batch, h w a, 2] (background first)
    and deltas [batch, h w a, 4], for a anchors a cell (Ren et al., NIPS 2015)."""
    ratios = len(network.anchor_ratios)
    feature = keras.Input((None, None, network.pyramid_output_channels), name="feature")
    shared = layers.Conv2D(network.rpn_channels, 3, padding="same", activation="relu", name="rpn_conv_shared")(feature)
    logits = layers.Conv2D(2 * ratios, 1, name="rpn_class_raw")(shared)
    deltas = layers.Conv2D(4 * ratios, 1, name="rpn_bbox_pred")(shared)
    outputs = [layers.Reshape((-1, 2), name="rpn_class_logits")(logits), layers.Reshape((-1, 4), name="rpn_bbox")(deltas)]
    return keras.Model(feature, outputs, name="rpn_model")


def build_box_head(network: NetworkConfig) -> keras.Model:
    """Pooled RoIs [n, 7, 7, c] to class logits [n, classes] and deltas [n, classes, 4]."""
    size, channels = network.box_pool_size, network.box_head_channels
    pooled = keras.Input((size, size, network.pyramid_output_channels), name="pooled")
    x = layers.Conv2D(channels, size, name="mrcnn_class_conv1")(pooled)
    x = layers.Activation("relu")(BatchNormalization(name="mrcnn_class_bn1")(x))
    x = layers.Conv2D(channels, 1, name="mrcnn_class_conv2")(x)
    x = layers.Activation("relu")(BatchNormalization(name="mrcnn_class_bn2")(x))
    x = layers.Reshape((channels,), name="pool_squeeze")(x)
    logits = layers.Dense(network.class_count, name="mrcnn_class_logits")(x)
    deltas = layers.Dense(4 * network.class_count, name="mrcnn_bbox_fc")(x)
    return keras.Model(
        pooled, [logits, layers.Reshape((network.class_count, 4), name="mrcnn_bbox")(deltas)], name="box_head"
    )


def build_mask_head(network: NetworkConfig) -> keras.Model:
    """Pooled RoIs [n, 14, 14, c] to mask logits [n, 28, 28, classes] (He et al., Mask R-CNN, ICCV 2017)."""
    size, channels = network.mask_pool_size, network.mask_head_channels
    pooled = keras.Input((size, size, network.pyramid_output_channels), name="pooled")
    x = pooled
    for index in (1, 2, 3, 4):
        x = layers.Conv2D(channels, 3, padding="same", name=f"mrcnn_mask_conv{index}")(x)
        x = layers.Activation("relu")(BatchNormalization(name=f"mrcnn_mask_bn{index}")(x))
    x = layers.Conv2DTranspose(channels, 2, strides=2, activation="relu", name="mrcnn_mask_deconv")(x)
    return keras.Model(pooled, layers.Conv2D(network.class_count, 1, name="mrcnn_mask")(x), name="mask_head")
