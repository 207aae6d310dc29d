"""The configuration: one tree of frozen dataclasses, read from YAML and refused where it is wrong.

The defaults are the published configuration; a YAML file names only what differs from them, or from another file that it
names as its ``base``. ``load_config("lungs.yaml")`` finds a bare name in ``configs/``. All that is wrong with a config is
said at once, a line each; ``config_sections.py`` holds the tree, ``config_rules.py`` the rules.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, get_args, get_origin, get_type_hints

from mask_rcnn.config_rules import (
    CLASS_COUNT, FOR_TWO_LUNGS, ILL_KINDS, PRECISIONS, RESNET_BLOCKS, RULES, Rule, broken_rules, message,
)  # fmt: skip
from mask_rcnn.config_sections import (
    AugmentationConfig, BagConfig, Config, ConfigError, DataConfig, DetectionConfig, NetworkConfig, ProposalConfig,
    QualityConfig, TargetConfig, TrainingConfig, leaves,
)  # fmt: skip
from mask_rcnn.system import strict_yaml
from mask_rcnn.system.shipped import shipped_configs

__all__ = [
    "CLASS_COUNT", "CONFIG_FOLDER", "ILL_KINDS", "PRECISIONS", "READING_SECTIONS", "RESNET_BLOCKS",
    "AugmentationConfig", "BagConfig", "Config", "ConfigError", "DataConfig", "DetectionConfig", "NetworkConfig",
    "ProposalConfig", "QualityConfig", "TargetConfig", "TrainingConfig",
    "apply_settings", "config_from_dict", "config_to_dict", "differing_keys", "learned_part", "load_config",
    "predicting_part",
]  # fmt: skip

CONFIG_FOLDER = shipped_configs()

BASE = "base"  # the key of a YAML file that names the file it differs from

# How a network's results are read: in its weights file they are defaults, and no weight depends on them.
READING_SECTIONS = ("detection", "bag")


def load_config(name_or_path: str | Path, settings: Sequence[str] = ()) -> Config:
    """Reads a YAML file; a bare name is looked up in ``configs/``, with or without ``.yaml``.

    A file may name another one as its ``base``, beside it or in ``configs/``; its own values then replace those of the
    base, key by key, a list as a whole.

    Args:
        settings: KEY=VALUE each, as ``apply_settings`` takes them, in place of what the file says.

    Raises:
        ConfigError: there is no such file, it cannot be read, is no YAML, holds a key twice, keys or values in it or in the
            settings are wrong, or it is no config for background and two lungs; the same of a base, or it is its own.
    """
    layers, wrong = _read_settings(settings, list(_types()))
    return _combine([*_read_file(_find(name_or_path)), *layers], (*RULES, FOR_TWO_LUNGS), wrong)


def apply_settings(config: Config, settings: Sequence[str], sections: Sequence[str] | None = None) -> Config:
    """The config with some of its values changed, as ``--set KEY=VALUE`` gives them on the command line.

    All are changed at once, so that values which only go together can be given in any order.

    Args:
        settings: such as ``bag.min_agreement=0.9``; what follows the first ``=`` is read as in a YAML file.
        sections: the sections that may be changed; by default every key of the config.

    Raises:
        ConfigError: a setting has no ``=``, its key is unknown (the nearest known one is named), stands twice or lies in
            another section, or its value has the wrong type or range; each line of the message begins with ``--set``.
    """
    if not settings:
        return config
    known = [key for key in _types() if sections is None or key.split(".")[0] in sections]
    layers, wrong = _read_settings(settings, known, sections)
    return _combine([_Layer("", config_to_dict(config)), *layers], wrong=wrong)


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """The config that nested mappings describe, as ``config_to_dict`` gives them; absent keys keep their defaults.

    Raises:
        ConfigError: keys are unknown (the nearest known one is named) or values have the wrong type or range.
    """
    return _combine([_Layer("", values)])


def config_to_dict(config: Config) -> dict[str, Any]:
    """The whole tree as plain dicts and lists, fit for YAML and JSON."""
    return dict(_plain(dataclasses.asdict(config)))


def learned_part(config: Config) -> Config:
    """The config with all on which no training depends as by default: equal for configs that train the same.

    A training goes on in another precision: on another machine it has to.
    """
    training = dataclasses.replace(config.training, precision=TrainingConfig.precision)
    return dataclasses.replace(
        config, training=training, detection=DetectionConfig(), bag=BagConfig(), quality=QualityConfig()
    )


def predicting_part(config: Config) -> Config:
    """The config with its training as by default, on which no prediction depends: equal for networks that predict alike."""
    return dataclasses.replace(config, training=TrainingConfig())


def differing_keys(one: Config, other: Config, sections: Sequence[str]) -> list[str]:
    """The keys of these sections whose values differ, such as ``bag.min_agreement``."""
    first, second = (dict(leaves(config_to_dict(config))) for config in (one, other))
    return [key for key, value in first.items() if key.split(".")[0] in sections and second[key] != value]


class _Layer(NamedTuple):
    """Values of one origin, which replace those of the layers before."""

    origin: str  # a file, or ``--set KEY=VALUE``; a line about one of the values begins with it
    values: Any  # nested mappings, as the origin has them


def _combine(layers: Sequence[_Layer], rules: Sequence[Rule] = RULES, wrong: Sequence[str] = ()) -> Config:
    """The defaults with the layers over them, the last one on top.

    Raises:
        ConfigError: a line for each that is wrong, ``wrong`` before all others.
    """
    lines = list(wrong)
    values = dict(leaves(dataclasses.asdict(Config())))
    layer_of: dict[str, int] = {}  # of each key, what has set it last
    for number, (origin, tree) in enumerate(layers):
        for key, value, complaint in _read_tree(tree):
            layer_of[key] = number
            if complaint:
                lines.append(_line(origin, complaint))
                values.pop(key, None)  # no rule speaks of it
            else:
                values[key] = value
    for rule in broken_rules(values, rules):
        last = max(layer_of.get(key, 0) for key in rule.keys)  # of several values the one that was set last is to blame
        lines.append(_line(layers[last].origin, message(rule, values)))
    if lines:
        raise ConfigError("\n".join(lines))
    return Config(**_nested(Config, values, ""))


def _line(origin: str, complaint: str) -> str:
    return f"{origin}: {complaint}" if origin else complaint


def _read_tree(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every key of nested mappings with its value, or with the empty text, and what is wrong with either."""
    if not isinstance(tree, Mapping):
        yield prefix, None, f"{prefix.rstrip('.') or 'the file'} must hold keys and values, not {tree!r}"
        return
    for name, value in tree.items():
        key = f"{prefix}{name}"
        is_plain = isinstance(name, str) and "." not in name
        if is_plain and key in _sections():
            yield from _read_tree(value, f"{key}.")
        elif is_plain and key in _types():
            yield key, *_convert(_types()[key], value, key)
        else:
            near = _nearest(key, [known for known in (*_sections(), *_types()) if known.rpartition(".")[0] == prefix[:-1]])
            yield key, None, f"unknown key {key}; did you mean {near}?"


def _convert(hint: Any, value: Any, key: str) -> tuple[Any, str]:
    """A value as its field has it, and nothing; or nothing, and what is wrong with it."""
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            return None, f"{key} must be a list, not {value!r}"
        items = [_convert(get_args(hint)[0], item, key) for item in value]
        return tuple(item for item, _ in items), next((complaint for _, complaint in items if complaint), "")
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            value = float(value)
        except ValueError:
            pass
    accepts = (int, float) if hint is float else (hint,)
    if not isinstance(value, accepts) or (isinstance(value, bool) and hint is not bool):
        return None, f"{key} must be {hint.__name__}, not {value!r}"
    try:
        return hint(value), ""
    except OverflowError:  # an integer that no float holds
        return None, f"{key} must be a finite number"


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    candidates = [path, CONFIG_FOLDER / path, CONFIG_FOLDER / f"{path}.yaml"] if path.parent == Path() else [path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        known = ", ".join(sorted(config.name for config in CONFIG_FOLDER.glob("*.yaml")))
        raise ConfigError(f"{name_or_path}: there is no such config; known are {known}")
    return found


def _read_file(path: Path, above: tuple[Path, ...] = ()) -> list[_Layer]:
    """What a file says, the files that it builds on before it; ``above`` are those that build on this one."""
    try:
        values = strict_yaml.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not readable as YAML ({error}); save it as UTF-8") from error
    except strict_yaml.YamlError as error:
        raise ConfigError(f"{path}: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, Mapping) or BASE not in values:
        return [_Layer(str(path), values)]
    base = values[BASE]
    if not isinstance(base, str) or not base or "\0" in base:
        raise ConfigError(f"{path}: {BASE} must be the name of a YAML file, not {base!r}")
    found = next((way for way in (path.parent / base, CONFIG_FOLDER / base) if way.is_file()), None)
    if found is None:
        raise ConfigError(f"{path}: its {BASE} {base} is neither in {path.parent} nor in {CONFIG_FOLDER}; correct the name")
    chain = (*above, path)
    if any(found.samefile(other) for other in chain):
        names = " builds on ".join(str(file) for file in (*chain, found))
        raise ConfigError(f"{path}: its {BASE} {base} leads back to it ({names}); remove one of these lines")
    own = {key: value for key, value in values.items() if key != BASE}
    return [*_read_file(found, chain), _Layer(str(path), own)]


def _read_settings(
    settings: Sequence[str], known: Sequence[str], sections: Sequence[str] | None = None
) -> tuple[list[_Layer], list[str]]:
    """The layer of each setting, and a line for each that is none."""
    layers: list[_Layer] = []
    lines = []
    changed: set[str] = set()
    for setting in settings:
        key, equals, text = setting.partition("=")
        complaint = ""
        if not equals:
            complaint = "must be KEY=VALUE, such as bag.min_agreement=0.9"
        elif key not in known:
            complaint = _why_unknown(key, known, sections)
        elif key in changed:
            complaint = f"{key} is set twice; leave one of them out"
        else:
            changed.add(key)
            try:
                value = strict_yaml.parse(text)
            except strict_yaml.YamlError as error:
                complaint = str(error)
            else:
                for name in reversed(key.split(".")):
                    value = {name: value}
                layers.append(_Layer(f"--set {setting}", value))
        if complaint:
            lines.append(f"--set {setting}: {complaint}")
    return layers, lines


def _why_unknown(key: str, known: Sequence[str], sections: Sequence[str] | None) -> str:
    inside = [other for other in known if other.startswith(f"{key}.")]
    if inside:
        return f"{key} is a section; set one of its values, such as {inside[0]}"
    if sections is not None and (key in _types() or key in _sections()):
        return f"{key} cannot be changed here; {', '.join(sections)} can"
    return f"unknown key {key}; did you mean {_nearest(key, known)}?"


def _nearest(key: str, known: Sequence[str]) -> str:
    return difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]


@cache
def _types() -> dict[str, Any]:
    """The type of every key that is no section."""
    return {key: hint for key, hint in _fields(Config, "") if not _is_section(hint)}


@cache
def _sections() -> tuple[str, ...]:
    """The keys that hold further keys: ``network``, ..., ``training.augmentation``."""
    return tuple(key for key, hint in _fields(Config, "") if _is_section(hint))


def _is_section(hint: Any) -> TypeGuard[type]:
    return dataclasses.is_dataclass(hint)


def _fields(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(kind).items():
        yield f"{prefix}{name}", hint
        if _is_section(hint):
            yield from _fields(hint, f"{prefix}{name}.")


def _nested(kind: type, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arguments of a section's class, of values by their keys."""
    return {
        name: hint(**_nested(hint, values, f"{prefix}{name}.")) if _is_section(hint) else values[prefix + name]
        for name, hint in get_type_hints(kind).items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
