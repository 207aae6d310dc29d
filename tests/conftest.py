"""What all tests share: quiet libraries, equal random numbers, and the folders that not every machine has."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # all are read when the libraries are imported
os.environ.setdefault("SM_FRAMEWORK", "tf.keras")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if importlib.util.find_spec("tensorflow"):  # named, it has the commands choose Keras where another runtime is installed too
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")

SHARED = Path(__file__).resolve().parents[2] / "shared"
PARITY = Path(__file__).resolve().parent / "parity"

_BUILT: dict[str, Any] = {}  # what takes seconds to build and trace, for all files that a process tests

# The longest files, longest first: begun first, they leave no process alone with one of them at the end.
LONGEST = ("train", "inference", "checkpoint", "create_dataset", "model", "golden", "precision", "notebooks", "backend",
           "compiled", "shipped_models", "layers", "imagenet", "api", "resume", "members", "parity", "package",
           "dicom_results")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Has ``--dist loadfile`` take the files in their order, not by how many tests they have."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """Spares the tests what takes longer than it saves."""
    # The search for garbage among all that the libraries have made: a fifth of the time in which a graph is traced.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    # TensorFlow's optimising of graphs of which few steps are run.
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # Keras's search, with every layer that it saves, for what not to save: it keeps the answer under a wrong name.
    saving = sys.modules.get("keras.src.saving.saving_lib")
    if saving is not None:
        saving.get_attr_skipset = functools.cache(saving.get_attr_skipset)
    # create_dataset.py's search of all that is installed for its libraries: half a second each time.
    metadata.packages_distributions = functools.cache(metadata.packages_distributions)


@pytest.fixture(autouse=True)
def _equal_random_numbers() -> None:
    """Every test starts from the same seed, whichever ran before it; tests without Keras do not wait for its import.

    Only TensorFlow's own seed stays, from which nothing here is drawn: setting it drops all graphs that are ready to run,
    which cost every test a second for each.
    """
    if "keras" in sys.modules:
        with pytest.MonkeyPatch.context() as patch:
            if "tensorflow" in sys.modules:
                patch.setattr(sys.modules["tensorflow"].random, "set_seed", lambda _: None)
            sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="module")
def unet_once() -> Iterator[None]:
    """The U-Net that ships is built and traced once in a process, for whatever loads it: that is most of its time."""
    from create_dataset import members, unet
    from mask_rcnn.system.shipped import shipped_unet

    load = unet.load_unet

    def load_once(path: str | Path) -> Any:
        if Path(path) != shipped_unet():
            return load(path)
        if "unet" not in _BUILT:
            _BUILT["unet"] = load(path)
        return _BUILT["unet"]

    with pytest.MonkeyPatch.context() as patch:
        for module in (members, unet):
            patch.setattr(module, "load_unet", load_once)
        yield


@pytest.fixture(scope="module")
def networks_once() -> Iterator[None]:
    """Networks of one config are built and traced once in a process, and filled with whatever weights are loaded next."""
    from tiny import refilled

    from mask_rcnn.model import MaskRCNN

    if "load" not in _BUILT:
        _BUILT["load"] = refilled(MaskRCNN.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRCNN, "load", staticmethod(_BUILT["load"]))
        yield


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Trains and predicts without tracing, in a test."""
    from tiny import eager_networks

    with eager_networks():
        yield


@pytest.fixture(scope="module")
def all_eagerly() -> Iterator[None]:
    """Trains and predicts without tracing, from the first test that wants it to the last of its file."""
    from tiny import eager_networks

    with eager_networks():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real films, which are not in the repository; skips where they are not beside it either."""
    return _folder_or_skip(SHARED / "data", "real films")


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the reference's answers to drawn films, and of the script that writes its checkpoint."""
    return PARITY


@pytest.fixture(scope="session")
def shared_parity() -> Path:
    """The folder of all the reference's answers, that to a real film too; skips where it is not there."""
    return _folder_or_skip(SHARED / "parity", "the reference implementation's answer to a real film")


def _folder_or_skip(folder: Path, content: str) -> Path:
    if not folder.is_dir():
        pytest.skip(f"needs {content} in ../shared/{folder.name}, which is not here")
    return folder
