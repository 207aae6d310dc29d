"""Where the configs and the networks that come with the program are.

In a checkout they are the folders ``configs/`` and ``models/`` beside the package, in an installation a part of it
(``setup.cfg`` puts them there).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "shipped"
_FOLDER = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent


def shipped_configs() -> Path:
    """The folder of the configs that a bare name is looked up in."""
    return _FOLDER / "configs"


def shipped_members() -> list[Path]:
    """The weights of the five networks that ship, sorted; not those that somebody trained into the same folder.

    Returns:
        None of them where they were removed; ``load_members`` refuses that.
    """
    return sorted((_FOLDER / "models").glob("lungs_small_*.weights.h5"))


def shipped_unet() -> Path:
    """The weights of the U-Net that ships, whether the file is there or was removed."""
    return _FOLDER / "models" / "unet" / "efficientnetb0.weights.h5"
