"""Where the shipped networks and configs are; tests/test_package.py finds them in an installation too."""

from __future__ import annotations

from pathlib import Path

import pytest

from mask_rcnn.system import shipped

ROOT = Path(__file__).resolve().parent.parent


def test_a_checkout_has_them_beside_the_package() -> None:
    assert shipped.shipped_configs() == ROOT / "configs"
    assert [path.name for path in shipped.shipped_members()] == [f"lungs_small_{k}.weights.h5" for k in range(1, 6)]
    assert shipped.shipped_unet().is_file()


def test_what_was_trained_into_the_same_folder_does_not_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    assert shipped.shipped_members() == []
    (tmp_path / "models").mkdir()
    for name in ("lungs_small_2.weights.h5", "my_lungs_1.weights.h5", "lungs_small_2.yaml"):
        (tmp_path / "models" / name).touch()
    assert [path.name for path in shipped.shipped_members()] == ["lungs_small_2.weights.h5"]
