"""Writes what documents say of the code, the options in docs/command_line.md and docs/rooms.svg, and docs/many_films.svg.

    python scripts/make_docs.py

Run it where a command's options, a room or a room's first line change, and commit what it writes; a test compares. Options
stand between two comments of the document, which name the program; the text around them is written by hand. The last picture
is drawn from the table in docs/many_films.md.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from bench.costs import draw_costs

ROOT = Path(__file__).resolve().parent.parent
OPTIONS, ROOMS = ROOT / "docs" / "command_line.md", ROOT / "docs" / "rooms.svg"
COSTS, COST_FIGURE = ROOT / "docs" / "many_films.md", ROOT / "docs" / "many_films.svg"

# The modules whose ``main`` the three launchers run.
COMMANDS = {
    "create_dataset.py": "create_dataset.command",
    "train.py": "mask_rcnn.commands.train",
    "inference.py": "mask_rcnn.commands.inference",
}

WIDTH, MARGIN, LINE, PADDING, GAP = 980, 16, 17, 10, 12  # pixels
CHARACTER = 6.6  # pixels, of the text in a room


def scripts_with_options() -> list[str]:
    """The scripts that read a command line, by their file names."""
    paths = sorted((ROOT / "scripts").glob("*.py"))
    names = [path.name for path in paths if "def main(" in path.read_text(encoding="utf-8")]
    return [name for name in names if name != Path(__file__).name]


class Parsed(Exception):
    """Raised in place of running a command: what its parser is, and what it has made of the arguments."""

    def __init__(self, parser: argparse.ArgumentParser, values: argparse.Namespace | None) -> None:
        super().__init__(parser.prog)
        self.parser, self.values = parser, values


def module_of(program: str) -> Any:
    """The module of a launcher, or of a file of ``scripts/``."""
    return import_module(COMMANDS.get(program, program.removesuffix(".py")))


def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser that a command or script makes; the command does not run."""
    with _stopped_at_its_parser(parses=False):
        try:
            module_of(program).main(["--help"])
        except Parsed as stopped:
            return stopped.parser
    raise ValueError(f"{program}: reads no command line")


def parse(program: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments as the command or script itself reads them; the command does not run.

    Raises:
        SystemExit: it refuses them, and has printed why.
    """
    with _stopped_at_its_parser(parses=True):
        try:
            module_of(program).main(list(arguments))
        except Parsed as stopped:
            assert stopped.values is not None
            return stopped.values
    raise ValueError(f"{program}: reads no command line")


@contextmanager
def _stopped_at_its_parser(parses: bool) -> Iterator[None]:
    original = argparse.ArgumentParser.parse_known_args

    def stop(self: argparse.ArgumentParser, *arguments: Any, **named: Any) -> Any:
        if not parses:
            raise Parsed(self, None)
        values, extras = original(self, *arguments, **named)
        if extras:
            self.error(f"unrecognized arguments: {' '.join(extras)}")
        raise Parsed(self, values)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        yield


def options_of(program: str) -> str:
    """The table of a program's options, in Markdown, with its description above it."""
    parser = parser_of(program)
    formatter = parser._get_formatter()
    lines = [parser.description or "", ""]
    if examples := examples_of(parser):
        lines += ["```bash", *examples, "```", ""]
    lines += ["| option | meaning |", "|---|---|"]
    for action in parser._actions:
        if action.dest == "help":
            continue
        named = formatter._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
        names = ", ".join(action.option_strings) or named
        shown = f"{names} {named}".strip() if action.option_strings else names
        meaning = formatter._expand_help(action) if action.help else ""
        if action.nargs != 0 and "default" not in meaning and action.default not in (None, []):
            meaning = f"{meaning}; default: {_shown(action.default)}".removeprefix("; ")
        if action.required:
            meaning = f"{meaning}; required".removeprefix("; ")
        lines.append(f"| `{_cell(shown)}` | {_cell(meaning)} |")
    return "\n".join(lines)


def examples_of(parser: argparse.ArgumentParser) -> list[str]:
    """The command lines that ``--help`` gives as examples."""
    lines = re.findall(rf"^ +({re.escape(parser.prog)} .+)$", parser.epilog or "", re.MULTILINE)
    return [f"python {line}" for line in lines]


def _cell(text: str) -> str:
    return text.replace(f"{ROOT}/", "").replace("|", r"\|")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def with_options(document: str) -> str:
    """The document with the options between its comments written anew; "scripts" stands for all of them."""

    def tables(match: re.Match[str]) -> str:
        if match[2] == "scripts":
            text = "\n\n".join(f"### `scripts/{name}`\n\n{options_of(name)}" for name in scripts_with_options())
        else:
            text = options_of(match[2])
        return f"{match[1]}\n\n{text}\n\n{match[3]}"

    return re.sub(r"(<!-- options of (\S+) -->).*?(<!-- end -->)", tables, document, flags=re.DOTALL)


def rooms() -> dict[str, tuple[str, set[str]]]:
    """Each room's first line, and the rooms that it imports; ``create_dataset`` is one of them."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((ROOT / "mask_rcnn").rglob("*.py")):
        below = path.relative_to(ROOT / "mask_rcnn")
        if below.name != "__init__.py" or len(below.parts) > 1:
            paths[below.parts[0].removesuffix(".py")].append(path)
    paths["create_dataset"] = sorted((ROOT / "create_dataset").glob("*.py"))
    found = {}
    for room, files in paths.items():
        head = next((path for path in files if path.name == "__init__.py"), files[0])
        text = ast.get_docstring(ast.parse(head.read_text(encoding="utf-8"))) or ""
        others = {name for path in files for name in _imported(path) if name in paths} - {room}
        found[room] = (text.partition("\n")[0].replace("``", ""), others)
    return found


def _imported(path: Path) -> Iterator[str]:
    """The rooms that a file names in its imports; what lies directly in ``mask_rcnn`` is a room of its own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "mask_rcnn":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("mask_rcnn."):
                yield node.module.split(".")[1]
            elif node.module.split(".")[0] == "create_dataset":
                yield "create_dataset"


def floors(found: dict[str, tuple[str, set[str]]]) -> list[list[str]]:
    """The rooms from the lowest floor up, each above all that it imports."""
    height: dict[str, int] = {}

    def floor_of(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((floor_of(other) for other in found[room][1]), default=-1)
        return height[room]

    by_floor: dict[int, list[str]] = defaultdict(list)
    for room in sorted(found):
        by_floor[floor_of(room)].append(room)
    return [by_floor[floor] for floor in sorted(by_floor)]


def draw_rooms() -> str:
    """The picture of the rooms as SVG."""
    found = rooms()
    parts: list[str] = []
    top = MARGIN + 2 * LINE
    for floor in reversed(floors(found)):
        width = (WIDTH - 2 * MARGIN - (len(floor) - 1) * GAP) / len(floor)
        wrapped = {room: textwrap.wrap(found[room][0], int((width - 2 * PADDING) / CHARACTER)) for room in floor}
        height = 2 * PADDING + LINE * (1 + max(map(len, wrapped.values())))
        for place, room in enumerate(floor):
            left = MARGIN + place * (width + GAP)
            kind = "other" if room == "create_dataset" else "room"
            parts.append(f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" rx="4"/>')
            x = left + PADDING
            parts.append(f'<text class="name" x="{x:.1f}" y="{top + PADDING + 12}">{escape(room)}</text>')
            parts += [
                f'<text x="{x:.1f}" y="{top + PADDING + 12 + LINE * (number + 1)}">{escape(line)}</text>'
                for number, line in enumerate(wrapped[room])
            ]
        top += height + GAP
    heading = "The rooms of mask_rcnn, and create_dataset beside them: each imports from the floors below it alone"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img">',
        f"<title>{heading}</title>",
        "<style>",
        "rect { stroke: #5b6b7a; stroke-width: 1; }",
        ".ground { fill: #ffffff; stroke: none; } .room { fill: #e8f0f7; } .other { fill: #fbeedb; }",
        "text { font: 12px Helvetica, Arial, sans-serif; fill: #1d2730; } .name { font-weight: bold; }",
        "</style>",
        f'<rect class="ground" width="{WIDTH}" height="{top}"/>',
        f'<text class="name" x="{MARGIN}" y="{MARGIN + 12}">{heading}</text>',
        *parts,
        "</svg>\n",
    ])


def main() -> int:
    OPTIONS.write_text(with_options(OPTIONS.read_text(encoding="utf-8")), encoding="utf-8")
    ROOMS.write_text(draw_rooms(), encoding="utf-8")
    COST_FIGURE.write_text(draw_costs(COSTS.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{', '.join(str(path.relative_to(ROOT)) for path in (OPTIONS, ROOMS, COST_FIGURE))}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
