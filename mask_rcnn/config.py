"""The configuration: one tree of frozen dataclasses, read from YAML and refused where it is wrong.

The defaults are the published configuration; a YAML file names only what differs. ``load_config("lungs.yaml")`` finds a
bare name in ``configs/``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from mask_rcnn.system import strict_yaml
from mask_rcnn.system.shipped import shipped_configs

CONFIG_FOLDER = shipped_configs()

# Bottleneck blocks in stages 2 to 5 (He et al., Deep Residual Learning, CVPR 2016, table 1; 26 is two in each).
RESNET_BLOCKS = {
    "resnet26": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}

PRECISIONS = ("float32", "float16", "bfloat16")

CLASS_COUNT = 3  # background, left lung, right lung: what the commands train and read; foreign files may hold others

# How a network's results are read: in its weights file they are defaults, and no weight depends on them.
READING_SECTIONS = ("detection", "bag")

_LARGEST_NUMBER = 2**31 - 1  # of an integer: seeds and sizes have 32 bits in the libraries below
_NOT_IN_NAMES = '/\\:*?"<>|[]'
_LONGEST_NAME = 100  # characters; _K.weights.h5 is added, and file systems take 255 bytes


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what is wrong and what would be right."""


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
    held_out: str = ""  # a list of films that are never learnt from, such as configs/held_out.csv; see dataset/held_out.py


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
    """What a film and its lungs have to be like, or a person is to look at them; quality.py tells what the measures are.

    create_dataset.py accepts, sends to review or rejects by all of it, inference.py sends to review by all but
    ``min_agreement``, which is the U-Nets' own; the bag has one of its own.

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


def load_config(name_or_path: str | Path, settings: Sequence[str] = ()) -> Config:
    """Reads a YAML file; a bare name is looked up in ``configs/``, with or without ``.yaml``.

    Args:
        settings: KEY=VALUE each, as ``apply_settings`` takes them, in place of what the file says.

    Raises:
        ConfigError: there is no such file, it cannot be read, is no YAML, holds a key twice, a key or value in it or in the
            settings is wrong, or it is no config for background and two lungs.
    """
    path = Path(name_or_path)
    candidates = [path, CONFIG_FOLDER / path, CONFIG_FOLDER / f"{path}.yaml"] if path.parent == Path() else [path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        known = ", ".join(sorted(config.name for config in CONFIG_FOLDER.glob("*.yaml")))
        raise ConfigError(f"{name_or_path}: there is no such config; known are {known}")
    try:
        text = found.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{found}: cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{found}: not readable as YAML ({error}); save it as UTF-8") from error
    try:
        values = strict_yaml.parse(text)
        config = config_from_dict({} if values is None else values)
    except (ConfigError, strict_yaml.YamlError) as error:
        raise ConfigError(f"{found}: {error}") from error
    config = apply_settings(config, settings)
    # Not a rule of every Config: the file of another network, to start from, is described by one too.
    if config.network.class_count != CLASS_COUNT:
        raise ConfigError(f"{found}: network.class_count must be {CLASS_COUNT}, background and the two lungs, "
                          f"not {config.network.class_count}; delete the line")
    return config


def apply_settings(config: Config, settings: Sequence[str], sections: Sequence[str] | None = None) -> Config:
    """The config with some of its values changed, as ``--set KEY=VALUE`` gives them on the command line.

    All are changed at once, so that values which only go together can be given in any order.

    Args:
        settings: such as ``bag.min_agreement=0.9``; what follows the first ``=`` is read as in a YAML file.
        sections: the sections that may be changed; by default every key of the config.

    Raises:
        ConfigError: a setting has no ``=``, its key is unknown (the nearest known one is named), stands twice or lies in
            another section, or its value has the wrong type or range; the message begins with ``--set``.
    """
    if not settings:
        return config
    values = config_to_dict(config)
    known = [key for key, _ in _values(values) if sections is None or key.split(".")[0] in sections]
    changed: set[str] = set()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: must be KEY=VALUE, such as bag.min_agreement=0.9")
        if key not in known:
            raise ConfigError(f"--set {setting}: {_why_unknown(key, values, known, sections)}")
        if key in changed:
            raise ConfigError(f"--set {setting}: {key} is set twice; leave one of them out")
        changed.add(key)
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        try:
            section[last] = strict_yaml.parse(text)
        except strict_yaml.YamlError as error:
            raise ConfigError(f"--set {setting}: {error}") from error
    try:
        return config_from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"--set {' '.join(settings)}: {error}") from error


def _values(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that is no section, ``training.augmentation.flip`` for one, and its value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _why_unknown(key: str, values: Mapping[str, Any], known: Sequence[str], sections: Sequence[str] | None) -> str:
    inside = [other for other in known if other.startswith(f"{key}.")]
    if inside:
        return f"{key} is a section; set one of its values, such as {inside[0]}"
    if sections is not None and (key in dict(_values(values)) or key in values):
        return f"{key} cannot be changed here; {', '.join(sections)} can"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"unknown key {key}; did you mean {near[0]}?"


def learned_part(config: Config) -> Config:
    """The config with every section on which no weight depends as by default: equal for configs that train the same."""
    return dataclasses.replace(config, detection=DetectionConfig(), bag=BagConfig(), quality=QualityConfig())


def differing_keys(one: Config, other: Config, sections: Sequence[str]) -> list[str]:
    """The keys of these sections whose values differ, such as ``bag.min_agreement``."""
    first, second = (dict(_values(config_to_dict(config))) for config in (one, other))
    return [key for key, value in first.items() if key.split(".")[0] in sections and second[key] != value]


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
    try:
        return hint(value)
    except OverflowError as error:  # an integer that no float holds
        raise ConfigError(f"{where} must be a finite number") from error


def _check(config: Config) -> None:
    for key, held in _values(dataclasses.asdict(config)):
        for number in held if isinstance(held, tuple) else (held,):
            if isinstance(number, int) and abs(number) > _LARGEST_NUMBER:
                raise ConfigError(f"{key} must not be beyond {_LARGEST_NUMBER}")
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{key} must be a finite number, not {number}")
    network, training, augmentation = config.network, config.training, config.training.augmentation
    rules: list[tuple[bool, str]] = [
        (_is_file_name(config.name), f"name must be a plain file name: 1 to {_LONGEST_NAME} printable characters, no path, "
                                     f"no leading dot, none of {_NOT_IN_NAMES}, not {config.name[:_LONGEST_NAME]!r}"),
        (config.laterality in ("patient", "image"), "laterality must be patient or image"),
        (config.seed >= 0, "seed must not be negative"),
        (network.image_size > 0 and network.image_size % 64 == 0, "network.image_size must be a multiple of 64"),
        (network.backbone in RESNET_BLOCKS, f"network.backbone must be one of {', '.join(RESNET_BLOCKS)}"),
        (len(network.anchor_scales) == 5, "network.anchor_scales must be 5, for pyramid levels P2 to P6"),
        (all(scale > 0 for scale in network.anchor_scales), "network.anchor_scales must be above 0"),
        (len(network.anchor_ratios) > 0, "network.anchor_ratios must not be empty"),
        (all(ratio > 0 for ratio in network.anchor_ratios), "network.anchor_ratios must be above 0"),
        (len(network.mean_pixel) == 3, "network.mean_pixel must be 3 numbers"),
        (all(0 <= value <= 255 for value in network.mean_pixel), "network.mean_pixel must be in [0, 255]"),
        (0 < config.proposals.nms_threshold <= 1, "proposals.nms_threshold must be in (0, 1]"),
        (len(config.proposals.box_std) == 4, "proposals.box_std must be 4 numbers"),
        (all(value > 0 for value in config.proposals.box_std), "proposals.box_std must be above 0"),
        (0 < config.targets.positive_fraction <= 1, "targets.positive_fraction must be in (0, 1]"),
        (0 <= config.detection.min_score <= 1, "detection.min_score must be in [0, 1]"),
        (0 < config.detection.nms_threshold <= 1, "detection.nms_threshold must be in (0, 1]"),
        (0 <= config.detection.mask_margin <= 1, "detection.mask_margin must be in [0, 1]"),
        (len(config.data.sources) > 0, "data.sources must name a dataset JSON or folder"),
        (all(source.strip() and source.isprintable() for source in config.data.sources),
         "data.sources must be names of files or folders, not empty ones"),
        (0 < config.data.train_fraction < 1, "data.train_fraction must lie between 0 and 1"),
        (config.data.members in ("bootstrap", "all", "sources"), "data.members must be bootstrap, all or sources"),
        (training.precision in PRECISIONS, f"training.precision must be one of {', '.join(PRECISIONS)}"),
        (training.optimiser in ("sgd", "adam"), "training.optimiser must be sgd or adam"),
        (training.schedule in ("constant", "cosine"), "training.schedule must be constant or cosine"),
        (training.learning_rate > 0, "training.learning_rate must be above 0"),
        (training.momentum < 1, "training.momentum must be below 1"),
        (training.heads_epochs + training.all_epochs > 0, "training.heads_epochs and all_epochs are both 0"),
        (len(training.loss_weights) == 5, "training.loss_weights must be 5 numbers"),
        (all(weight >= 0 for weight in training.loss_weights) and sum(training.loss_weights) > 0,
         "training.loss_weights must not be negative, nor all 0"),
        (config.bag.pixels in ("votes", "probabilities"), "bag.pixels must be votes or probabilities"),
        (1 <= config.bag.min_votes <= config.bag.members, "bag.min_votes must be from 1 to bag.members"),
        (0 <= config.bag.min_agreement <= 1, "bag.min_agreement must be in [0, 1]"),
        (-1 <= config.quality.reject_likeness <= config.quality.min_likeness <= 1,
         "quality.reject_likeness must be from -1 to quality.min_likeness, and that 1 or less"),
    ]
    least = {  # 2: a film shows two lungs, RoIAlign spreads its samples from edge to edge, RoIs and anchors are of two kinds
        "network": {"class_count": 2, "backbone_width": 1, "pyramid_channels": 1, "pyramid_output_channels": 1,
                    "rpn_channels": 1, "box_head_channels": 1, "mask_head_channels": 1, "box_pool_size": 2,
                    "mask_pool_size": 1, "mask_canonical_side": 1},
        "proposals": {"before_nms": 1, "training_count": 1, "inference_count": 1},
        "targets": {"anchors_per_image": 2, "rois_per_image": 2, "max_instances": 2},
        "detection": {"max_instances": 2},
        "training": {"batch_size": 1},
        "bag": {"members": 1, "opening": 1},
    }
    for section, keys in least.items():
        rules += [(getattr(getattr(config, section), key) >= bound, f"{section}.{key} must be {bound} or more")
                  for key, bound in keys.items()]
    rules.append((training.gradient_clip_norm > 0, "training.gradient_clip_norm must be above 0"))
    bounds = ("min_agreement", "min_area", "min_ratio", "max_side_contact", "max_shape_distance", "min_sharpness",
              "max_aspect")
    rules += [(getattr(config.quality, key) >= 0, f"quality.{key} must not be negative") for key in bounds]
    rules += [(value <= (180 if key == "rotation" else 1), f"training.augmentation.{key} is too strong; rotation goes up to "
                                                           "180 degrees, all else to 1")
              for key, value in vars(augmentation).items()]
    numbers = {"training": vars(training), "training.augmentation": vars(augmentation)}
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


def _is_file_name(name: str) -> bool:
    """Whether a file may be called so on every system, and a shell or glob takes the name as it is."""
    return (0 < len(name) <= _LONGEST_NAME and len(name.encode("utf-8", "replace")) <= 2 * _LONGEST_NAME
            and name.isprintable() and name == name.strip(" .") and not set(name) & set(_NOT_IN_NAMES))
