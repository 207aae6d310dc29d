"""The four parts that have weights: their shapes, and what every layer owes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contract import check_contract, check_revival
from tiny import build_sober, drawing_all_config

from mask_rcnn.model import MaskRCNN

PARTS = {  # the shape of what goes in, and the shapes of what comes out
    "pyramid": ((2, 64, 64, 3), [(2, side, side, 16) for side in (16, 8, 4, 2, 1)]),
    "proposal_head": ((2, 4, 6, 16), [(2, 72, 2), (2, 72, 4)]),
    "box_head": ((3, 7, 7, 16), [(3, 3), (3, 3, 4)]),
    "mask_head": ((3, 14, 14, 16), [(3, 28, 28, 3)]),
}


@pytest.fixture(scope="module")
def model() -> MaskRCNN:
    return build_sober(drawing_all_config())


@pytest.mark.parametrize("name", PARTS)
def test_part(model: MaskRCNN, name: str, tmp_path: Path) -> None:
    shape, expected = PARTS[name]
    part = getattr(model.network, name)
    inputs = np.random.default_rng(0).normal(0, 50 if name == "pyramid" else 1, shape).astype(np.float32)
    answers = check_contract(part, inputs)
    assert [answer.shape for answer in (answers if isinstance(answers, list) else [answers])] == expected
    check_revival(part, tmp_path, inputs)
