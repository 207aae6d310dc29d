"""The configuration: one tree of frozen dataclasses, read from YAML and refused where it is wrong.

The defaults are the published configuration; a YAML file names only what differs. ``load_config("lungs.yaml")`` finds a
bare name in ``configs/``.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

CONFIG_FOLDER = Path(__file__).resolve().parent.parent / "configs"

# Bottleneck blocks in stages 2 to 5 (He et al., Deep Residual Learning, CVPR 2016, table 1; 26 is two in each).
RESNET_BLOCKS = {
    "resnet26": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}

PRECISIONS = ("float32", "float16", "bfloat16")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what is wrong and what would be right."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the ResNet-FPN and its heads; channels unless said otherwise."""

    image_size: int = 256  # pixels a side, a multiple of 64
    class_count: int = 3  # background, left lung, right lung
    backbone: str = "resnet101"
    backbone_width: int = 64  # of the stem; stage 2 has four times as many at its end
    pyramid_channels: int = 256
    pyramid_output_channels: int = 128  # after the last 3 x 3 convolution
    rpn_channels: int = 512
    box_head_channels: int = 1024
    mask_head_channels: int = 256
    box_pool_size: int = 7  # cells of RoIAlign a side
    mask_pool_size: int = 14  # the masks have twice as many
    mask_canonical_side: int = 224  # pixels: of the RoI whose mask is drawn from P4; the greater, the finer the levels
    anchor_scales: tuple[int, ...] = (16, 32, 64, 128, 256)  # pixels, one a pyramid level P2 to P6
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # width over height
    mean_pixel: tuple[float, ...] = (123.7, 116.8, 103.9)
    train_batch_norm: bool = False  # small batches give poor statistics: the published network keeps them frozen

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
    mask_margin: float = 0.0  # a mask is drawn in its box widened by this share of its size, on every side
    # The reference pasted masks into boxes of whole pixels and smaller than they were taught; utils.place_mask tells more.
    exact_masks: bool = True


@dataclass(frozen=True)
class DataConfig:
    """The films to learn from: dataset JSON files, published ones too, or folders of ``images/`` and label ``masks/``."""

    sources: tuple[str, ...] = ("data/dataset/dataset.json",)
    train_fraction: float = 0.9
    members: str = "bootstrap"  # or "all": each learns from every film; or "sources": member k from source k alone
    patient_pattern: str = ""  # regular expression whose group is the patient in a film's path; "" lets table and names tell


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
    flip: float = 0.0  # probability of a mirrored film, its labels swapped


@dataclass(frozen=True)
class TrainingConfig:
    """Stages, optimiser and what is written on the way."""

    heads_epochs: int = 20
    all_epochs: int = 40
    batch_size: int = 2
    precision: str = "float32"  # or "float16", "bfloat16": of the convolutions while training; weights and losses keep 32
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
    min_agreement: float = 0.95  # of ensemble.film_agreement; a film below it is for review (scripts/measure_uncertainty.py)


@dataclass(frozen=True)
class QualityConfig:
    """What create_dataset.py asks of a film before training takes it; create_dataset/quality.py tells what the measures are.

    Chosen on Shenzhen, Kaggle and spoilt copies of their films: 1 good adult film in 100 fails, 4 children's and bedside
    films in 100 (scripts/measure_quality.py).
    """

    min_agreement: float = 0.9  # mean Dice of the lungs between the members, or with what one says of the mirrored film
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
        _check(self)


def load_config(name_or_path: str | Path) -> Config:
    """Reads a YAML file; a bare name is looked up in ``configs/``, with or without ``.yaml``.

    Raises:
        ConfigError: there is no such file, it is no YAML, or a key or value in it is wrong.
    """
    path = Path(name_or_path)
    candidates = [path, CONFIG_FOLDER / path, CONFIG_FOLDER / f"{path}.yaml"] if path.parent == Path() else [path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        known = ", ".join(sorted(config.name for config in CONFIG_FOLDER.glob("*.yaml")))
        raise ConfigError(f"{name_or_path}: there is no such config; known are {known}")
    try:
        values = yaml.safe_load(found.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{found}: not readable as YAML ({' '.join(str(error).split())})") from error
    try:
        return config_from_dict(values or {})
    except ConfigError as error:
        raise ConfigError(f"{found}: {error}") from error


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """The config that nested mappings describe, as ``config_to_dict`` gives them; absent keys keep their defaults.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named) or a value has the wrong type or range.
    """
    return _build(Config, values, "")


def config_to_dict(config: Config) -> dict[str, Any]:
    """The whole tree as plain dicts and lists, fit for YAML and JSON."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _build(kind: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'the file'} must hold keys and values, not {values!r}")
    hints = get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)
            raise ConfigError(f"unknown key {prefix}{key}; did you mean {prefix}{near[0]}?")
        hint = hints[key]
        where = f"{prefix}{key}"
        nested = dataclasses.is_dataclass(hint)
        arguments[key] = _build(hint, value, f"{where}.") if nested else _convert(hint, value, where)
    return kind(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_convert(get_args(hint)[0], item, where) for item in value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            value = float(value)
        except ValueError:
            pass
    accepts = (int, float) if hint is float else (hint,)
    if not isinstance(value, accepts) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} must be {hint.__name__}, not {value!r}")
    return hint(value)


def _check(config: Config) -> None:
    network, training = config.network, config.training
    rules: list[tuple[bool, str]] = [
        (config.laterality in ("patient", "image"), "laterality must be patient or image"),
        (network.image_size > 0 and network.image_size % 64 == 0, "network.image_size must be a multiple of 64"),
        (network.class_count >= 2, "network.class_count must be 2 or more: background and a class"),
        (network.backbone in RESNET_BLOCKS, f"network.backbone must be one of {', '.join(RESNET_BLOCKS)}"),
        (len(network.anchor_scales) == 5, "network.anchor_scales must be 5, for pyramid levels P2 to P6"),
        (len(network.anchor_ratios) > 0, "network.anchor_ratios must not be empty"),
        (len(network.mean_pixel) == 3, "network.mean_pixel must be 3 numbers"),
        (0 < config.proposals.nms_threshold <= 1, "proposals.nms_threshold must be in (0, 1]"),
        (len(config.proposals.box_std) == 4 and min(config.proposals.box_std) > 0, "proposals.box_std: 4 above 0"),
        (0 < config.targets.positive_fraction <= 1, "targets.positive_fraction must be in (0, 1]"),
        (0 <= config.detection.min_score <= 1, "detection.min_score must be in [0, 1]"),
        (0 < config.detection.nms_threshold <= 1, "detection.nms_threshold must be in (0, 1]"),
        (0 <= config.detection.mask_margin <= 1, "detection.mask_margin must be in [0, 1]"),
        (len(config.data.sources) > 0, "data.sources must name a dataset JSON or folder"),
        (0 < config.data.train_fraction < 1, "data.train_fraction must lie between 0 and 1"),
        (config.data.members in ("bootstrap", "all", "sources"), "data.members must be bootstrap, all or sources"),
        (training.precision in PRECISIONS, f"training.precision must be one of {', '.join(PRECISIONS)}"),
        (training.optimiser in ("sgd", "adam"), "training.optimiser must be sgd or adam"),
        (training.schedule in ("constant", "cosine"), "training.schedule must be constant or cosine"),
        (training.learning_rate > 0, "training.learning_rate must be above 0"),
        (training.heads_epochs + training.all_epochs > 0, "training.heads_epochs and all_epochs are both 0"),
        (len(training.loss_weights) == 5, "training.loss_weights must be 5 numbers"),
        (config.bag.pixels in ("votes", "probabilities"), "bag.pixels must be votes or probabilities"),
        (1 <= config.bag.min_votes <= config.bag.members, "bag.min_votes must be from 1 to bag.members"),
        (0 <= config.bag.min_agreement <= 1, "bag.min_agreement must be in [0, 1]"),
        (-1 <= config.quality.reject_likeness <= config.quality.min_likeness <= 1,
         "quality.reject_likeness must be from -1 to quality.min_likeness, and that 1 or less"),
    ]
    positive = {
        "network": ("backbone_width", "pyramid_channels", "pyramid_output_channels", "rpn_channels",
                    "box_head_channels", "mask_head_channels", "box_pool_size", "mask_pool_size", "mask_canonical_side"),
        "proposals": ("before_nms", "training_count", "inference_count"),
        "targets": ("anchors_per_image", "rois_per_image", "max_instances"),
        "detection": ("max_instances",),
        "training": ("batch_size", "gradient_clip_norm"),
        "bag": ("members", "opening"),
    }
    bounds = ("min_agreement", "min_area", "min_ratio", "max_side_contact", "max_shape_distance", "min_sharpness",
              "max_aspect")
    rules += [(getattr(config.quality, key) >= 0, f"quality.{key} must not be negative") for key in bounds]
    for section, keys in positive.items():
        rules += [(getattr(getattr(config, section), key) > 0, f"{section}.{key} must be above 0") for key in keys]
    numbers = {"training": vars(training), "training.augmentation": vars(training.augmentation)}
    for section, values in numbers.items():
        for key, value in values.items():
            if isinstance(value, (int, float)):
                rules.append((value >= 0, f"{section}.{key} must not be negative"))
    rules.append((_is_pattern(config.data.patient_pattern),
                  "data.patient_pattern must be a regular expression with one group, the patient, or empty"))
    for holds, message in rules:
        if not holds:
            raise ConfigError(message)


def _is_pattern(text: str) -> bool:
    """Whether a text is empty or a regular expression with exactly one group."""
    try:
        return not text or re.compile(text).groups == 1
    except (re.error, OverflowError, RecursionError):
        return False
