"""The sections of the configuration: frozen dataclasses, whose defaults are the published configuration.

``config.py`` reads them from files and settings; ``config_rules.py`` says which values are right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mask_rcnn.config_rules import CLASS_COUNT, ILL_KINDS, broken_rules, message


class ConfigError(ValueError):
    """A configuration that cannot be used; a line for each mistake says the key, what is wrong and what would be right."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the ResNet-FPN and its heads; channels unless said otherwise."""

    image_size: int = 256  # pixels a side, a multiple of 64
    class_count: int = CLASS_COUNT
    backbone: str = "resnet101"
    backbone_width: int = 64  # of the stem; stage 2 has four times as many at its end
    pyramid_channels: int = 256
    pyramid_output_channels: int = 128  # after the last 3 x 3 convolution
    rpn_channels: int = 512
    box_head_channels: int = 1024
    mask_head_channels: int = 256
    box_pool_size: int = 7  # cells of RoIAlign a side
    mask_pool_size: int = 14  # the masks have twice as many
    mask_canonical_side: int = 224  # pixels: of the RoI whose mask is pooled from P4; the greater, the finer the levels
    anchor_scales: tuple[int, ...] = (16, 32, 64, 128, 256)  # pixels, one a pyramid level P2 to P6
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # width over height
    mean_pixel: tuple[float, ...] = (123.7, 116.8, 103.9)
    train_batch_norm: bool = False  # the published network keeps its statistics frozen; from random weights they learn

    @property
    def mask_size(self) -> int:
        return 2 * self.mask_pool_size


@dataclass(frozen=True)
class ProposalConfig:
    """From scored anchors to proposals."""

    before_nms: int = 6000  # best anchors kept
    training_count: int = 500
    inference_count: int = 250
    nms_threshold: float = 0.7  # IoU
    box_std: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2)  # box deltas are divided by these


@dataclass(frozen=True)
class TargetConfig:
    """What the heads learn from: anchors and RoIs an image."""

    anchors_per_image: int = 128
    rois_per_image: int = 64
    positive_fraction: float = 1 / 3
    add_ground_truth: bool = False  # the instances themselves among the proposals, as Faster R-CNN does
    max_instances: int = 4  # ground truth instances an image; a film has two lungs


@dataclass(frozen=True)
class DetectionConfig:
    """From RoIs to detections."""

    max_instances: int = 20
    min_score: float = 0.7
    nms_threshold: float = 0.3  # IoU, within a class
    mask_margin: float = 0.0  # of a box's size, by which it is widened on every side for its mask
    # False pastes masks as the reference does, into boxes of whole pixels and too small; see utils.place_mask.
    exact_masks: bool = True


@dataclass(frozen=True)
class DataConfig:
    """The films to learn from: dataset JSON files, published ones too, or folders of ``images/`` and label ``masks/``."""

    sources: tuple[str, ...] = ("data/dataset/dataset.json",)
    epoch_films: tuple[int, ...] = ()  # of each source in an epoch, in the order of sources; 0, or no list: all of them
    train_fraction: float = 0.9
    members: str = "bootstrap"  # or "all": each learns from every film; or "sources": member k from source k alone
    patient_pattern: str = ""  # regular expression whose group is the patient in a film's path; "" goes by table and names
    held_out: str = ""  # a list of films that are never learnt from, such as configs/held_out.csv; see dataset/held_out.py
    corrected_weight: int = 1  # times that a film is shown whose lungs a person corrected (corrections.json)


@dataclass(frozen=True)
class AugmentationConfig:
    """Strengths of the random changes to a training film; zero is none."""

    rotation: float = 0.0  # degrees, standard deviation
    scale: float = 0.0  # of the logarithm, standard deviation
    shift: float = 0.0  # of the side, standard deviation
    shading: float = 0.0  # gradients and opacities, share of the grey range
    noise: float = 0.0  # grain, share of the grey range
    apparatus: float = 0.0  # probability of tubes, leads, letters and the like
    beside: float = 0.0  # probability of air, an arm or an unexposed edge beside the chest
    ill: float = 0.0  # probability of opaque lungs, gas below a diaphragm, tubes where they are put; see dataset/illness.py
    ill_kinds: tuple[str, ...] = ILL_KINDS  # which of these
    flip: float = 0.0  # probability of a mirrored film, its labels swapped


@dataclass(frozen=True)
class TrainingConfig:
    """Stages, optimiser and what is written on the way."""

    heads_epochs: int = 20
    all_epochs: int = 40
    patience: int = 10  # epochs of a stage without a better validation Dice, after which the stage ends; 0 never ends one
    batch_size: int = 2
    precision: str = "auto"  # or "float32", "float16", "bfloat16": of convolutions in training; auto: system/precision.py
    optimiser: str = "sgd"  # or "adam"
    learning_rate: float = 0.001
    all_learning_rate_factor: float = 1.0  # in the second stage
    schedule: str = "constant"  # or "cosine": to zero over a stage
    momentum: float = 0.9
    gradient_clip_norm: float = 5.0
    weight_decay: float = 1e-4  # L2, on kernels, divided by their size as the reference does
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)  # in the order of losses.LOSS_NAMES
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass(frozen=True)
class BagConfig:
    """The members that are bagged."""

    members: int = 5
    pixels: str = "votes"  # or "probabilities": the members' mean, lung from 0.5
    min_votes: int = 3  # of the members that found a lung, or all of them where fewer did
    opening: int = 4  # pixels a side of the square that opens the voted mask
    min_agreement: float = 0.95  # of film_agreement; a film below it is for review (scripts/measure_uncertainty.py)
    max_risk: float = 1.0  # that a lung is wrong, by bag/risk.py; a film above it is for review (scripts/fit_risk.py)


@dataclass(frozen=True)
class QualityConfig:
    """Thresholds of a film and its lungs, beyond which a person reviews them; ``checks/quality.py`` explains the measures.

    create_dataset.py accepts, sends to review or rejects by all of it, inference.py sends to review by all but
    ``min_agreement``, which is the U-Nets' own; the bag has one of its own.

    Chosen on Shenzhen, Kaggle and spoilt copies of their films: 1 good adult film in 100 fails, 4 children's and bedside
    films in 100 (scripts/measure_quality.py).
    """

    min_agreement: float = 0.9  # mean Dice of the lungs between members, or with one's own of the mirrored film
    min_area: float = 0.08  # of both lungs, share of the film
    min_ratio: float = 0.3  # of the lungs' areas, smaller over larger
    max_side_contact: float = 0.15  # along the film's left or right edge, share of its height
    max_shape_distance: float = 2.0  # from the usual shapes and places, in deviations
    min_likeness: float = 0.5  # correlation with the mean chest
    reject_likeness: float = 0.2  # below it the film is no upright frontal chest film at all
    min_heart_side: float = -0.7  # in deviations; of a mirrored film it is below 0
    min_sharpness: float = 0.03  # fine detail, share of the contrast
    max_aspect: float = 3.0  # of the film, longer side over shorter


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on besides its films and its initial weights."""

    name: str = "lungs"
    laterality: str = "patient"  # or "image": lungs named by image side
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    bag: BagConfig = field(default_factory=BagConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)

    def __post_init__(self) -> None:
        values = dict(leaves(dataclasses.asdict(self)))
        if lines := [message(rule, values) for rule in broken_rules(values)]:
            raise ConfigError("\n".join(lines))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that is no section, ``training.augmentation.flip`` for one, and its value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
