"""README, model card and docs/: commands parse, paths and links exist, the Python runs, what is generated is up to date.

A command is taken from a fenced block of shell, from inline code that begins with a program, from a script's docstring, from
the first lines of a config and from the shell scripts; the real parser of the command reads its options, and nothing runs.
"""

from __future__ import annotations

import ast
import glob
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from PIL import Image
from script import ROOT, load_script

import mask_rcnn
from mask_rcnn.bag.lung import Lung
from mask_rcnn.checks.quality import measure_lungs
from mask_rcnn.config import CONFIG_FOLDER, Config, apply_settings, load_config
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.lungs import CATEGORIES, SIDES
from mask_rcnn.results import tables
from mask_rcnn.version import __version__

DOCUMENTS = [ROOT / name for name in ("README.md", "MODEL_CARD.md", "CHANGELOG.md", "CONTRIBUTING.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
README, CHANGELOG, OUTPUTS = ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs" / "outputs.md"

MOST_WORDS = 1200  # of the README

# What the repository holds: a path that begins so must exist, unless a command of the documents writes it.
HELD = {"configs", "create_dataset", "data", "docs", "mask_rcnn", "models", "notebooks", "scripts", "tests"}
WRITTEN = ("data/dataset", "models/my_lungs", "models/NAME")

# Programs that are installed beside the commands, which have options of their own.
OTHERS = {"docker", "pip", "ray", "source", "tensorboard"}
INSTALLED = {
    "lungs-create-dataset": "create_dataset.py",
    "lungs-train": "train.py",
    "lungs-inference": "inference.py",
    "lungs-review": "scripts/review.py",
    "lungs-corrections": "scripts/corrections.py",
}

# Words of earlier drafts, and what prose says instead.
WORDS = {
    r"thousand million": "GFLOPs", r"drawn by hand": "annotated by hand", r"hand-drawn": "annotated by hand",
    r"\bthe networks? (look|ask|say|tell)": "predict", r"\bask(s|ed)? the (networks?|members?|U-Nets?)\b": "predict",
    r"look(s|ed)? at (a|the) films?": "predicts",
}  # fmt: skip


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def make_docs() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")  # where a script finds the others
        yield load_script("make_docs")


def blocks_of(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def inline_code(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [code.replace("\n", " ").replace(r"\|", "|") for code in re.findall(r"`([^`]+)`", text)]


def commands_of(path: Path) -> Iterator[str]:
    """The commands that a document, script or config states."""
    if path.suffix == ".md":
        for block in blocks_of(path, "bash"):
            yield from block.splitlines()
        programs = ("python ", "bash ", "pip ", "tensorboard ", *(f"{name} " for name in INSTALLED))
        yield from (code for code in inline_code(path) if code.startswith(programs))
    elif path.suffix == ".py":
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        yield from re.findall(r"^ {4}(python .*)", text, re.MULTILINE)
    elif path.suffix == ".yaml":
        yield from re.findall(r"^# (python .*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    else:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        values = {'"${weights[@]}"': "models/*.h5", '"$python"': "python", "$member": "1", "$data": "../shared/data"}
        for variable, value in values.items():
            text = text.replace(variable, value)
        yield from re.findall(r"^\s*(python \w+\.py .*|python scripts/.*)", text, re.MULTILINE)


STATED = [
    pytest.param(command, id=f"{ids(path)}: {command}")
    for path in [*DOCUMENTS, *sorted((ROOT / "scripts").glob("*.*")), *sorted((ROOT / "configs").glob("*.yaml"))]
    for command in dict.fromkeys(commands_of(path))
    if command.strip() and not command.startswith("#")
]


def check_path(text: str) -> None:
    """A path into the repository exists."""
    path = text.split("=")[-1].strip("[]")
    if path.split("/")[0] in HELD and not path.startswith(WRITTEN):
        assert glob.glob(str(ROOT / path)), f"{path}: there is no such file or folder"


@pytest.mark.parametrize("command", STATED)
def test_commands_can_be_given(command: str, make_docs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):  # settings of the environment
        words = words[1:]
    program, *arguments = words
    for word in arguments:
        check_path(word)
    if program in OTHERS or (program, *arguments[:2]) == ("python", "-m", "pytest"):
        return
    if program == "cp":
        assert (ROOT / arguments[0]).is_file()
        return
    if program == "bash":
        assert (ROOT / arguments[0]).is_file() and arguments[0].startswith("scripts/")
        return
    if program == "python":
        assert (ROOT / arguments[0]).is_file()
        program, *arguments = arguments
    monkeypatch.chdir(ROOT)
    name = INSTALLED.get(program, Path(program).name)
    expanded = [path for word in arguments for path in (sorted(glob.glob(word)) if "*" in word else []) or [word]]
    if name == "make_docs.py":
        assert not arguments
        return
    values = make_docs.parse(name, expanded)
    apply_settings(Config(), getattr(values, "settings", []))
    config = str(getattr(values, "config", None) or "my_lungs.yaml")
    assert config.startswith("my_") or (CONFIG_FOLDER / f"{config.removesuffix('.yaml')}.yaml").is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_options_and_paths_exist(path: Path, make_docs: ModuleType) -> None:
    programs = (*make_docs.COMMANDS, *make_docs.scripts_with_options())
    options = {name: set(make_docs.parser_of(name)._option_string_actions) for name in programs}
    of_tests = {"--cov", "--cov-report"}
    for code in inline_code(path):
        first, *words = code.split()
        known = options.get(Path(first).name, set().union(*options.values()) | of_tests)
        for word in (first, *words):
            if word.startswith("--") and not first.startswith(("pip", "ray", "tensorboard")):
                assert word.split("=")[0].rstrip(",.") in known, code
        if not words:
            check_path(first.rstrip("/"))


def is_named(name: str) -> bool:
    """Whether ``mask_rcnn.films.dicom`` is a module, or the last part a name in one."""
    module = ROOT.joinpath(*name.split("."))
    if module.with_suffix(".py").is_file() or (module / "__init__.py").is_file():
        return True
    parent = module.parent
    home = parent.with_suffix(".py") if parent.with_suffix(".py").is_file() else parent / "__init__.py"
    return home.is_file() and re.search(rf"\b{module.name}\b", home.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path != CHANGELOG], ids=ids)
def test_modules_exist(path: Path) -> None:
    names = [code for code in inline_code(path) if re.fullmatch(r"(mask_rcnn|create_dataset)(\.\w+)+", code)]
    names = [name for name in names if not name.endswith(".py")]
    assert not [name for name in names if not is_named(name)]


def test_moved_imports_are_where_the_changelog_says() -> None:
    rows = re.findall(r"^\| (`mask_rcnn\.[^|]*) \| ([^|]*) \|$", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 50
    for old, new in rows:
        module, *names = re.findall(r"`([\w.]+)`", new)
        names = names or re.findall(r"`([\w.]+)`", old)[1:]
        assert is_named(module), new
        assert all(is_named(f"{module}.{name}") for name in names), (old, new)


def slugs_of(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_links_resolve(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        if not re.match(r"https?:", link):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), link
            assert not anchor or anchor in slugs_of(target), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_words_are_the_fields_own(path: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8").split())
    for pattern, better in WORDS.items():
        assert not (found := re.search(pattern, text, re.IGNORECASE)), f"{found[0]}: rather {better}"


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_every_document_is_linked_from_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    assert not [path for path in DOCUMENTS if path != README and f"({ids(path)})" not in text]


def test_options_and_rooms_are_those_of_the_code(make_docs: ModuleType) -> None:
    written = make_docs.OPTIONS.read_text(encoding="utf-8")
    assert make_docs.with_options(written) == written, "run python scripts/make_docs.py"
    assert make_docs.draw_rooms() == make_docs.ROOMS.read_text(encoding="utf-8"), "run python scripts/make_docs.py"
    costs = make_docs.COSTS.read_text(encoding="utf-8")
    figure = make_docs.COST_FIGURE.read_text(encoding="utf-8")
    assert make_docs.draw_costs(costs) == figure, "run python scripts/make_docs.py"


def test_every_column_is_explained() -> None:
    codes = set(inline_code(OUTPUTS))
    columns = set()
    for column in tables.COLUMNS:
        side = next((side for side in SIDES.values() if column.startswith(f"{side}_") and column not in codes), "")
        columns.add(column.removeprefix(f"{side}_") if side else column)
    measures = measure_lungs(np.zeros((256, 256), np.uint8), {})
    assert not (columns | measures.keys()) - codes


def test_configs_can_be_read(tmp_path: Path) -> None:
    blocks = [block for path in DOCUMENTS for block in blocks_of(path, "yaml")]
    assert blocks
    for block in blocks:
        path = tmp_path / "my_lungs.yaml"
        path.write_text(block, encoding="utf-8")
        assert load_config(path).name == "my_lungs"


def test_python_calls_fit_the_library() -> None:
    for path in DOCUMENTS:
        for block in blocks_of(path, "python"):
            for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
                owner, _, name = ast.unparse(call.func).rpartition(".")
                if owner in ("mask_rcnn", "bag"):
                    signature = inspect.signature(getattr(mask_rcnn if owner == "mask_rcnn" else mask_rcnn.Bag, name))
                    given = [None] * (len(call.args) + (owner == "bag"))
                    signature.bind(*given, **{str(keyword.arg): None for keyword in call.keywords})


@pytest.mark.parametrize("kind", [mask_rcnn.Film, mask_rcnn.Result, Lung], ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind: type) -> None:
    sections = re.split(r"^## ", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    [section] = [section for section in sections if section.startswith(f"{kind.__name__}\n")]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(inspect.get_annotations(kind))


def test_five_lines_of_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    [code] = blocks_of(README, "python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    result = names["result"]
    assert str(result.labels.shape) in capsys.readouterr().out
    exact = np.asarray(Image.open(ROOT / "data" / "phantoms" / "masks" / "phantom_0001.png"))
    for category in CATEGORIES:
        assert dice(result.labels == category, exact == category) > 0.94
    assert result.agreement > 0.95 and not result.reasons


def test_the_citation_is_of_a_version_that_the_changelog_has() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # all that the schema requires
    versions = dict(re.findall(r"^## \[([\d.]+)\] - (\S+)$", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE))
    assert versions[citation["version"]] == str(citation["date-released"])
    assert __version__ in versions
