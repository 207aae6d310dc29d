"""What tests of ``scripts/`` share: the script as a module, and films to give it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS = ROOT / "data" / "phantoms"


def load_script(name: str) -> ModuleType:
    """``scripts/NAME.py``, which no package holds."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # where dataclasses look it up
    specification.loader.exec_module(module)
    return module


def copy_phantoms(folder: Path, count: int) -> Path:
    """The first phantoms, as a folder of films and masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
        for path in sorted((PHANTOMS / name).glob("*.png"))[:count]:
            shutil.copy(path, folder / name)
    return folder
