"""YAML as people write it by hand: a key that stands twice is refused, where PyYAML takes the last one without a word."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class YamlError(ValueError):
    """A text that is no YAML, or holds a key twice; the message is one line and gives the line of the text."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # Before PyYAML resolves "<<", whose keys may stand again beside it.
        first: dict[Hashable, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if isinstance(key, Hashable) and key in first:
                raise YamlError(f"line {line}: the key {key} stands twice, first in line {first[key]}; delete one of them")
            if isinstance(key, Hashable):
                first[key] = line
        return dict(super().construct_mapping(node, deep))


def parse(text: str) -> Any:
    """What a YAML document holds, as ``yaml.safe_load`` gives it; None where it is empty.

    Raises:
        YamlError: it is no YAML, holds a key twice in one mapping, or is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)
    except YamlError:
        raise
    # Besides its own error PyYAML lets out those of what it builds: a month 13, an integer of 5000 digits.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise YamlError(f"not readable as YAML ({' '.join(str(error).split())})") from error
