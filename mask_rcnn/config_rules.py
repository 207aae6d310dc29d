"""Which values a config may hold: the rules that ``config.py`` refuses a config by, all broken ones at once.

Values come by their keys, ``training.augmentation.flip`` for one. A rule whose key is absent, since its value is no number
for instance, is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Bottleneck blocks in stages 2 to 5 (He et al., Deep Residual Learning, CVPR 2016, table 1; 14 and 26 have one and two).
RESNET_BLOCKS = {
    "resnet14": (1, 1, 1, 1),
    "resnet26": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}

PRECISIONS = ("auto", "float32", "float16", "bfloat16")

ILL_KINDS = ("opacities", "diaphragms", "gas", "neck", "tubes")  # what dataset/illness.py paints

CLASS_COUNT = 3  # background, left lung, right lung: what the commands train and read; foreign files may hold others

_LARGEST_NUMBER = 2**31 - 1  # of an integer: seeds and sizes have 32 bits in the libraries below
_NOT_IN_NAMES = '/\\:*?"<>|[]'
_LONGEST_NAME = 100  # characters; _K.weights.h5 is added, and file systems take 255 bytes


class Rule(NamedTuple):
    """A rule over one value or several."""

    keys: tuple[str, ...]
    holds: Callable[..., bool]  # of the values of these keys
    demand: str  # what follows the first key in a message; {value!r} is its value


def broken_rules(values: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> Iterator[Rule]:
    """The rules that the values break, one for each first key: a value that breaks several has the same remedy.

    Args:
        values: by key; lists are tuples.
        rules: by default those that every config keeps.
    """
    complained: set[str] = set()
    unusable: set[str] = set()
    for key, value in values.items():
        if demand := _number_demand(value):
            unusable.add(key)
            yield Rule((key,), lambda _: False, demand)
    for rule in RULES if rules is None else rules:
        usable = all(key in values and key not in unusable for key in rule.keys)
        if usable and rule.keys[0] not in complained and not rule.holds(*(values[key] for key in rule.keys)):
            complained.add(rule.keys[0])
            yield rule


def message(rule: Rule, values: Mapping[str, Any]) -> str:
    """A broken rule in words: key, what would be right and, where the rule says it, what is wrong."""
    key = rule.keys[0]
    value = values[key]
    return f"{key} {rule.demand.format(value=value[:_LONGEST_NAME] if isinstance(value, str) else value)}"


def _number_demand(value: Any) -> str:
    """What a number, or a number of a list, must be and is not; empty where nothing is wrong."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int) and abs(number) > _LARGEST_NUMBER:
            return f"must not be beyond {_LARGEST_NUMBER}"
        if isinstance(number, float) and not math.isfinite(number):
            return f"must be a finite number, not {number}"
    return ""


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


def _one_of(key: str, *choices: str) -> Rule:
    return Rule((key,), lambda value: value in choices, f"must be {', '.join(choices[:-1])} or {choices[-1]}")


def _at_least(section: str, **bounds: int) -> list[Rule]:
    return [Rule((f"{section}.{key}",), lambda value, bound=bound: bool(value >= bound), f"must be {bound} or more")
            for key, bound in bounds.items()]


def _not_negative(section: str, *keys: str) -> list[Rule]:
    return [Rule((f"{section}.{key}",), lambda value: bool(value >= 0), "must not be negative") for key in keys]


def _in_unit_interval(*keys: str) -> list[Rule]:
    return [Rule((key,), lambda value: 0 <= value <= 1, "must be in [0, 1]") for key in keys]


def _above_zero(*keys: str) -> list[Rule]:
    """Of a number, or of every number of a list."""
    return [Rule((key,), lambda value: all(number > 0 for number in (value if isinstance(value, tuple) else (value,))),
                 "must be above 0") for key in keys]


def _as_many(key: str, count: int, what: str = "numbers") -> Rule:
    return Rule((key,), lambda value: len(value) == count, f"must be {count} {what}")


_AUGMENTATIONS = ("scale", "shift", "shading", "noise", "apparatus", "beside", "ill", "flip")  # shares, 1 at most

RULES: tuple[Rule, ...] = (
    Rule(("name",), _is_file_name, f"must be a plain file name: 1 to {_LONGEST_NAME} printable characters, no path, "
                                   f"no leading dot, none of {_NOT_IN_NAMES}, not {{value!r}}"),
    _one_of("laterality", "patient", "image"),
    Rule(("seed",), lambda seed: seed >= 0, "must not be negative"),

    Rule(("network.image_size",), lambda side: side > 0 and side % 64 == 0, "must be a multiple of 64"),
    Rule(("network.backbone",), lambda name: name in RESNET_BLOCKS, f"must be one of {', '.join(RESNET_BLOCKS)}"),
    _as_many("network.anchor_scales", 5, "sizes, for pyramid levels P2 to P6"),
    Rule(("network.anchor_ratios",), lambda ratios: len(ratios) > 0, "must not be empty"),
    *_above_zero("network.anchor_scales", "network.anchor_ratios"),
    _as_many("network.mean_pixel", 3),
    Rule(("network.mean_pixel",), lambda pixel: all(0 <= level <= 255 for level in pixel), "must be in [0, 255]"),
    # 2 of some: a film shows two lungs, RoIAlign spreads its samples from edge to edge, RoIs and anchors are of two kinds.
    *_at_least("network", class_count=2, backbone_width=1, pyramid_channels=1, pyramid_output_channels=1, rpn_channels=1,
               box_head_channels=1, mask_head_channels=1, box_pool_size=2, mask_pool_size=1, mask_canonical_side=1),

    *_at_least("proposals", before_nms=1, training_count=1, inference_count=1),
    Rule(("proposals.nms_threshold",), lambda iou: 0 < iou <= 1, "must be in (0, 1]"),
    _as_many("proposals.box_std", 4),
    *_above_zero("proposals.box_std"),

    *_at_least("targets", anchors_per_image=2, rois_per_image=2, max_instances=2),
    Rule(("targets.positive_fraction",), lambda share: 0 < share <= 1, "must be in (0, 1]"),

    *_at_least("detection", max_instances=2),
    *_in_unit_interval("detection.min_score", "detection.mask_margin"),
    Rule(("detection.nms_threshold",), lambda iou: 0 < iou <= 1, "must be in (0, 1]"),

    Rule(("data.sources",), lambda sources: len(sources) > 0, "must name a dataset JSON or folder"),
    Rule(("data.sources",), lambda sources: all(source.strip() and source.isprintable() for source in sources),
         "must be names of files or folders, not empty ones"),
    Rule(("data.epoch_films", "data.sources"), lambda counts, sources: len(counts) in (0, len(sources)),
         "must be as many numbers as data.sources are, or none"),
    Rule(("data.epoch_films",), lambda counts: all(count >= 0 for count in counts), "must not be negative"),
    Rule(("data.train_fraction",), lambda share: 0 < share < 1, "must lie between 0 and 1"),
    *_at_least("data", corrected_weight=1),
    _one_of("data.members", "bootstrap", "all", "sources"),
    Rule(("data.patient_pattern",), _is_pattern, "must be a regular expression with one group, the patient, or empty"),

    *_not_negative("training", "heads_epochs", "all_epochs", "patience"),
    Rule(("training.heads_epochs", "training.all_epochs"), lambda heads, then: heads + then > 0,
         "and all_epochs are both 0"),
    *_at_least("training", batch_size=1),
    Rule(("training.precision",), lambda name: name in PRECISIONS, f"must be one of {', '.join(PRECISIONS)}"),
    _one_of("training.optimiser", "sgd", "adam"),
    _one_of("training.schedule", "constant", "cosine"),
    *_above_zero("training.learning_rate", "training.gradient_clip_norm"),
    *_not_negative("training", "all_learning_rate_factor", "momentum", "weight_decay"),
    Rule(("training.momentum",), lambda momentum: momentum < 1, "must be below 1"),
    _as_many("training.loss_weights", 5),
    Rule(("training.loss_weights",), lambda weights: all(weight >= 0 for weight in weights) and sum(weights) > 0,
         "must not be negative, nor all 0"),
    *_not_negative("training.augmentation", "rotation", *_AUGMENTATIONS),
    Rule(("training.augmentation.ill_kinds",), lambda kinds: set(kinds) <= set(ILL_KINDS),
         f"may name {', '.join(ILL_KINDS)}"),
    Rule(("training.augmentation.rotation",), lambda degrees: degrees <= 180, "is too strong; it goes up to 180 degrees"),
    *(Rule((f"training.augmentation.{key}",), lambda share: share <= 1, "is too strong; it goes up to 1")
      for key in _AUGMENTATIONS),

    *_at_least("bag", members=1, opening=1),
    _one_of("bag.pixels", "votes", "probabilities"),
    Rule(("bag.min_votes", "bag.members"), lambda votes, members: 1 <= votes <= members, "must be from 1 to bag.members"),
    *_in_unit_interval("bag.min_agreement", "bag.max_risk"),

    *_not_negative("quality", "min_agreement", "min_area", "min_ratio", "max_side_contact", "max_shape_distance",
                   "min_sharpness", "max_aspect"),
    Rule(("quality.reject_likeness", "quality.min_likeness"), lambda reject, accept: -1 <= reject <= accept <= 1,
         "must be from -1 to quality.min_likeness, and that 1 or less"),
)  # fmt: skip

# Not of every config: the file of another network, to start from, is described by one too.
FOR_TWO_LUNGS = Rule(
    ("network.class_count",), lambda count: count == CLASS_COUNT,
    f"must be {CLASS_COUNT}, background and the two lungs, not {{value}}; delete the line",
)  # fmt: skip
