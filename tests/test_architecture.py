"""What no single module can promise: imports run downwards, names stand in one place, requirements say what is used."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mask_rcnn.config import NetworkConfig
from mask_rcnn.lungs import CATEGORIES

ROOT = Path(__file__).resolve().parents[1]

# The rooms from the lowest floor up: a room imports from its own floor's and from lower rooms. A new room needs a floor.
FLOORS = (
    {"version", "lungs"},
    {"system", "config_rules"},
    {"config_sections"},
    {"config"},
    {"films"},
    {"utils", "network", "run"},
    {"weights", "dataset", "checks", "prediction"},
    {"model", "runtime"},
    {"bag"},
    {"results"},
    {"evaluation"},
    {"inference", "training"},
    {"commands"},
    {"api"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Rooms, and modules of others, that run without Keras: a film is read, and a dataset made, without waiting for it.
WITHOUT_KERAS = ("version", "lungs", "system", "config_rules", "config_sections", "config", "films", "run", "utils",
                 "checks", "results", "evaluation", "training", "inference", "commands", "prediction", "runtime")
ALSO_WITHOUT_KERAS = (
    "mask_rcnn.dataset.augmentation", "mask_rcnn.dataset.coco", "mask_rcnn.dataset.legacy", "mask_rcnn.dataset.sources",
    "mask_rcnn.dataset.split", "mask_rcnn.bag.vote", "mask_rcnn.bag.members", "mask_rcnn.api",
    "create_dataset.lungs", "create_dataset.sources", "create_dataset.command", "create_dataset.unet_graph",
)

# Rooms of mask_rcnn that making a dataset uses.
FOR_DATASETS = {"version", "lungs", "system", "config", "films", "utils", "run", "dataset", "checks", "results", "weights",
                "runtime"}

# Packages that are imported under another name than they are installed by.
INSTALLED_AS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "segmentation_models": "segmentation-models",
}

# Required and never imported here: pydicom's decoders find the one by themselves, nbclient starts the other.
FOUND_BY_OTHERS = {"python-gdcm"}
STARTED_BY_OTHERS = {"ipykernel"}

# Of an extra of setup.cfg: what needs it says so where it is not installed.
OPTIONAL = {"highdicom", "nbclient", "nbformat", "onnx", "onnxruntime", "openvino"}
EXTRAS = ("dicom", "notebooks", "onnx", "openvino")

# Of an extra that requirements-dev.txt leaves out: Ray alone is 80 MB to download, and its test takes minutes.
NOT_FOR_DEVELOPERS = {"ray"}

# Backends that Keras can run on instead of TensorFlow; no code may need one.
OTHER_BACKENDS = {"jax", "torch"}

SOURCES = sorted(
    path
    for folder in ("mask_rcnn", "create_dataset", "scripts")
    for path in (ROOT / folder).rglob("*.py")
) + sorted(ROOT.glob("*.py"))
PACKAGED = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("mask_rcnn", "create_dataset")]


def name_of(path: Path) -> str:
    """``mask_rcnn/films/dicom.py`` is ``mask_rcnn.films.dicom``, a package's ``__init__.py`` the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


MODULES = {name_of(path): path for path in PACKAGED}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too: ``from mask_rcnn import films`` is ``mask_rcnn.films``."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                package = ".".join([*path.relative_to(ROOT).parts[: -node.level], *filter(None, [node.module])])
            inside = {f"{package}.{alias.name}" for alias in node.names}
            found |= (inside & MODULES.keys()) or {package}
    return found


def own_imports(name: str) -> set[str]:
    """The project's modules that one of them imports, itself and empty packages aside."""
    return (imports_of(MODULES[name]) & MODULES.keys()) - {name}


def room_of(name: str) -> str:
    """``mask_rcnn.films.dicom`` and ``mask_rcnn.films`` are in ``films``, ``mask_rcnn.utils`` is a room of its own."""
    return name.split(".")[1]


ROOMY = sorted(name for name in MODULES if name.startswith("mask_rcnn."))


def test_every_room_has_a_floor() -> None:
    assert {room_of(name) for name in ROOMY} == FLOOR_OF.keys()


@pytest.mark.parametrize("name", ROOMY)
def test_imports_run_downwards(name: str) -> None:
    room = room_of(name)
    others = {other for other in own_imports(name) if other.startswith("mask_rcnn.") and room_of(other) != room}
    above = {other for other in others if FLOOR_OF[room_of(other)] >= FLOOR_OF[room]}
    assert not above, f"{name} stands on floor {FLOOR_OF[room]} and imports {above}"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("create_dataset")))
def test_making_a_dataset_needs_no_network_of_another_room(name: str) -> None:
    outside = {other for other in own_imports(name) if other.startswith("mask_rcnn.")}
    assert {room_of(other) for other in outside} <= FOR_DATASETS, outside


def test_no_module_imports_itself_by_way_of_others() -> None:
    finished: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " imports ".join((*way[way.index(name):], name))
        if name not in finished:
            for other in sorted(own_imports(name)):
                visit(other, (*way, name))
            finished.add(name)

    for name in MODULES:
        visit(name, ())
    assert finished == MODULES.keys()


def test_these_rooms_run_without_keras() -> None:
    modules = [name for name in ROOMY if room_of(name) in WITHOUT_KERAS] + list(ALSO_WITHOUT_KERAS)
    backends = {"keras", "tensorflow", *OTHER_BACKENDS}
    code = f"import sys, {', '.join(modules)}; print(sorted({backends} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_network_speaks_keras_alone() -> None:
    backends = {"tensorflow", *OTHER_BACKENDS}
    bound = {name for name in ROOMY if backends & {other.split(".")[0] for other in imports_of(MODULES[name])}}
    # Batch normalisation and pooling are quicker by kernels of TensorFlow; elsewhere, to the same result, they are Keras's;
    # several processes train on TensorFlow alone.
    allowed = {"mask_rcnn.system.devices", "mask_rcnn.system.precision", "mask_rcnn.system.workers",
               "mask_rcnn.network.normalisation", "mask_rcnn.network.pooling"}
    assert bound <= allowed, "the network runs on every backend of Keras"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is_for(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree) or not tree.body


def texts_of(tree: ast.Module) -> Iterator[str]:
    """The strings that a module computes with: docstrings are for readers."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("name", sorted(MODULES))
def test_lungs_are_named_and_numbered_in_one_place(name: str) -> None:
    tree = tree_of(MODULES[name])
    named = [text for text in texts_of(tree) if any(category in text for category in CATEGORIES.values())]
    numbered = [
        target.id
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in ast.walk(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
        and target.id in ("LEFT_LUNG", "RIGHT_LUNG", "CATEGORIES")
    ]
    if name == "mask_rcnn.lungs":
        assert sorted(named) == sorted(CATEGORIES.values()) and len(numbered) == 3
    else:
        assert not named and not numbered, "ids and names of the lungs belong to lungs.py alone"


def test_the_network_has_a_class_for_each_lung_and_the_background() -> None:
    assert NetworkConfig().class_count == 1 + len(CATEGORIES)


def required(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    entries = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.strip(): version.strip() for name, version in entries}


def packages_of(paths: list[Path]) -> set[str]:
    """What has to be installed for these files, by the name it is installed under."""
    own = {"mask_rcnn", "create_dataset", "scripts", "phantom", "bench", "tests"}
    own |= {path.stem for path in [*SOURCES, *(ROOT / "tests").glob("*.py")]}
    roots = {module.split(".")[0] for path in paths for module in imports_of(path)}
    return {INSTALLED_AS.get(root, root) for root in roots - own - sys.stdlib_module_names}


def test_requirements_name_what_is_imported_and_nothing_else() -> None:
    assert required("requirements.txt").keys() - FOUND_BY_OTHERS == packages_of(SOURCES) - OPTIONAL - NOT_FOR_DEVELOPERS
    extras = {name for extra in EXTRAS for name in bounds()[extra]}
    assert required("requirements-dev.txt").keys() >= extras == OPTIONAL | STARTED_BY_OTHERS
    assert required("requirements.txt").keys() >= FOUND_BY_OTHERS


def test_requirements_of_developers_cover_the_tests() -> None:
    known = required("requirements.txt").keys() | required("requirements-dev.txt").keys()
    assert packages_of(sorted((ROOT / "tests").glob("*.py"))) - OTHER_BACKENDS <= known


def test_every_requirement_says_a_version_known_to_work() -> None:
    versions = required("requirements.txt") | required("requirements-dev.txt")
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in versions.values()), versions


def bounds() -> dict[str, dict[str, tuple[int, ...]]]:
    """The lowest versions that setup.cfg asks for, by extra; "" is what every installation needs."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {
        extra: {name: version_of(bound) for name, bound in (line.split(" >= ") for line in lines.split("\n") if line)}
        for extra, lines in lists.items()
    }


def version_of(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@pytest.mark.parametrize(
    "file, extras",
    [
        ("requirements.txt", [""]), ("requirements-dev.txt", ["dev", *EXTRAS]),
        ("requirements-backends.txt", ["jax", "torch"]),
    ],
)
def test_the_pinned_versions_are_ones_that_the_package_asks_for(file: str, extras: list[str]) -> None:
    lowest = {name: bound for extra in extras for name, bound in bounds()[extra].items()}
    pinned = {name: version_of(version) for name, version in required(file).items()}
    assert pinned.keys() == lowest.keys()
    assert all(pinned[name] >= bound for name, bound in lowest.items())


def test_every_package_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = setup["options"]["packages"].split()
    own = {name_of(path) for path in PACKAGED if path.name == "__init__.py"}
    elsewhere = {"mask_rcnn.shipped.configs", "mask_rcnn.shipped.models", "mask_rcnn.shipped.models.unet"}
    assert sorted(listed) == sorted(own | elsewhere)


def test_scripts_import_what_is_installed() -> None:
    assert not [
        path.name for path in (ROOT / "scripts").rglob("*.py")
        if path.name != "evaluate.py" and "sys.path" in path.read_text(encoding="utf-8")
    ]
