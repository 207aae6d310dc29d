"""The package as it is installed: every module and file is in it, and five lines of Python work from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.lungs import SIDES

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS = ROOT / "data" / "phantoms"
TREE = (
    "mask_rcnn", "create_dataset", "configs", "models", "setup.cfg", "pyproject.toml", "README.md", "LICENSE",
    "MODEL_CARD.md",
)  # fmt: skip

FIVE_LINES = """
import json, os, sys
import numpy as np
import mask_rcnn
bag = mask_rcnn.load_bag()
result = bag.predict(mask_rcnn.read_film(sys.argv[1]))
np.save("labels.npy", result.labels)
from create_dataset.unet import encoder_of
from mask_rcnn.config import load_config
from mask_rcnn.dataset.conventions import convention_of
from mask_rcnn.system.shipped import shipped_unet
encoder_of(shipped_unet())
os.mkdir("v7_children")
print(json.dumps({"from": mask_rcnn.__file__, "members": len(bag.members), "config": load_config("lungs_small").name,
                  "convention": convention_of("v7_children")}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which a copy of the tree was installed; the checkout is left as it is."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed: the package cannot be built without the network")
    folder = tmp_path_factory.mktemp("package")
    source, target = folder / "tree", folder / "site"
    source.mkdir()
    for name in TREE:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--target", str(target), str(source)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return target


def test_every_file_of_the_packages_is_installed(installed: Path) -> None:
    for package in ("mask_rcnn", "create_dataset"):
        own = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*")
               if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
        assert {path for path in own if not (installed / path).is_file()} == set()
    for folder in ("configs", "models"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".h5", ".csv") or (folder == "configs" and path.suffix == ".yaml"):
                assert (installed / "mask_rcnn" / "shipped" / path.relative_to(ROOT)).is_file(), path


def test_five_lines_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """With the networks, the U-Net and the configs of the installation."""
    film = PHANTOMS / "images" / "phantom_0001.png"
    run = subprocess.run(
        [sys.executable, "-c", FIVE_LINES, str(film)], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    told = json.loads(run.stdout.splitlines()[-1])
    assert Path(told["from"]).is_relative_to(installed)
    assert told["members"] == 5 and told["config"] == "lungs_small" and told["convention"] == "heart drawn in"
    labels = np.load(tmp_path / "labels.npy")
    truth = np.asarray(Image.open(PHANTOMS / "masks" / "phantom_0001.png"))
    assert all(dice(labels == category, truth == category) > 0.9 for category in SIDES)


def test_the_commands_are_on_the_path(installed: Path) -> None:
    scripts = {path.name for path in (installed / "bin").iterdir()}
    assert {"lungs-create-dataset", "lungs-train", "lungs-inference"} <= scripts
