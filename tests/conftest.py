"""What all tests share: quiet libraries, equal random numbers, and the folders that not every machine has."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
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

# The longest files, longest first: begun first, they leave no process alone with one of them at the end.
LONGEST = ("compiled", "train", "model", "checkpoint", "precision", "layers", "golden", "shipped_models", "inference",
           "notebooks", "members", "backend", "parity", "resume", "create_dataset")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Has ``--dist loadfile`` take the files in their order, not by how many tests they have."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """Spares the tests what takes longer than it saves: the search for garbage among all that the libraries have made, a
    fifth of the time in which a graph is traced, and TensorFlow's optimising of graphs of which few steps are run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def _equal_random_numbers() -> None:
    """Every test starts from the same seed, whichever ran before it; tests without Keras do not wait for its import."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains without tracing, which takes longer than a few steps do."""
    from mask_rcnn.model import Network

    compile_plainly = Network.compile

    def compile_eagerly(self: Network, *arguments: Any, **more: Any) -> None:
        compile_plainly(self, *arguments, **more)
        self.run_eagerly = True

    monkeypatch.setattr(Network, "compile", compile_eagerly)


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
