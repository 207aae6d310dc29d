"""The quality checks: each measure on films where its answer is known, each threshold at its edge, the verdict's words."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from create_dataset.lungs import find_small_lungs
from create_dataset.quality import measure
from mask_rcnn.checks.chest import CELLS, describe, heart_side, likeness, shape_distance, thumbnail, typical_chest
from mask_rcnn.checks.quality import ACCEPTED, REJECTED, REVIEW, judge
from mask_rcnn.config import Config, ConfigError, QualityConfig, config_from_dict, config_to_dict
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

SIDE = 256
PHANTOMS = sorted((Path(__file__).resolve().parents[1] / "data" / "phantoms" / "images").glob("*.png"))
THRESHOLDS = QualityConfig()

Film = tuple[np.ndarray, np.ndarray]  # square uint8 [256, 256], votes float32 [1, 256, 256]


def phantom(path: Path) -> Film:
    """A drawn film and, for votes, its drawn lungs with edges as soft as a U-Net's."""
    labels = cv2.imread(str(path.parent.parent / "masks" / path.name), cv2.IMREAD_GRAYSCALE)
    assert labels is not None
    drawn = cv2.resize((labels > 0).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    square = cv2.resize(read_film(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return square, cv2.GaussianBlur(drawn, (0, 0), 1.0)[None]


def measured(
    square: np.ndarray, votes: np.ndarray, mirrored: np.ndarray | None = None, aspect: float = 1.0
) -> dict[str, float]:
    return measure(square, votes, votes if mirrored is None else mirrored, find_small_lungs(votes), aspect=aspect)


def ellipse(x: int, y: int, width: int = 70, height: int = 150) -> np.ndarray:
    return cv2.ellipse(np.zeros((SIDE, SIDE), np.uint8), (x, y), (width // 2, height // 2), 0, 0, 360, 1, -1).astype(bool)


LEFT, RIGHT = ellipse(75, 128), ellipse(180, 128)
GREY = np.full((SIDE, SIDE), 128, np.uint8)


def votes_of(*masks: np.ndarray) -> np.ndarray:
    return np.stack(masks).astype(np.float32)


@pytest.fixture(scope="module")
def films() -> list[Film]:
    return [phantom(path) for path in PHANTOMS]


def test_drawn_chests_are_accepted(films: list[Film]) -> None:
    assert films
    assert [judge(measured(*film), THRESHOLDS) for film in films] == [(ACCEPTED, [])] * len(films)


@pytest.mark.parametrize("turns", [1, 2, 3], ids=["to the left", "upside down", "to the right"])
def test_turned_films_are_not_accepted(films: list[Film], turns: int) -> None:
    turned = [(np.rot90(square, turns), np.rot90(votes, turns, (1, 2)).copy()) for square, votes in films]
    assert all(judge(measured(*film), THRESHOLDS)[0] != ACCEPTED for film in turned)


def test_inverted_and_mirrored_films_are_not_accepted(films: list[Film]) -> None:
    for square, votes in films:
        assert judge(measured(255 - square, votes), THRESHOLDS)[0] == REJECTED
        status, reasons = judge(measured(square[:, ::-1], votes[:, :, ::-1]), THRESHOLDS)
        assert status == REVIEW and any("mirrored" in reason for reason in reasons)


def test_the_side_of_the_heart_changes_its_sign_when_the_film_is_mirrored(films: list[Film]) -> None:
    for square, votes in films:
        there = measured(square, votes)["heart_side"]
        assert measured(square[:, ::-1], votes[:, :, ::-1])["heart_side"] == pytest.approx(-there, abs=0.25)
        assert there > 0


def test_a_blurred_film_is_for_review(films: list[Film]) -> None:
    square, votes = films[0]
    status, reasons = judge(measured(cv2.GaussianBlur(square, (0, 0), 5), votes), THRESHOLDS)
    assert status == REVIEW and [reason.split(" (")[0] for reason in reasons] == ["blurred"]


@pytest.mark.parametrize("square", [
    np.zeros((SIDE, SIDE), np.uint8), np.full((SIDE, SIDE), 255, np.uint8),
    np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8),
], ids=["black", "white", "noise"])  # fmt: skip
@pytest.mark.parametrize("votes", [votes_of(GREY > 255), votes_of(LEFT), votes_of(LEFT | RIGHT)], ids=["none", "one", "two"])
def test_no_picture_is_a_chest_whatever_the_network_finds(square: np.ndarray, votes: np.ndarray) -> None:
    status, reasons = judge(measured(square, votes), THRESHOLDS)
    assert status == REJECTED and len(reasons) == 1 and "frontal chest" in reasons[0]


def test_a_chest_with_one_lung_or_none_is_for_review(films: list[Film]) -> None:
    square, votes = films[0]
    lungs = find_small_lungs(votes)
    for lung in (LEFT_LUNG, RIGHT_LUNG):
        assert judge(measured(square, votes_of(lungs[lung])), THRESHOLDS) == (REVIEW, ["one lung found"])
    assert judge(measured(square, np.zeros_like(votes)), THRESHOLDS) == (REVIEW, ["no lung found"])


def test_agreement_is_the_mean_dice_of_all_pairs_of_opinions_and_lungs() -> None:
    half = LEFT.copy()
    half[128:] = False
    dice = 2 * half.sum() / (half.sum() + LEFT.sum())
    both = votes_of(LEFT | RIGHT)
    assert measured(GREY, both, votes_of(half | RIGHT))["agreement"] == pytest.approx((dice + 1) / 2, abs=1e-4)
    assert measured(GREY, both, votes_of(LEFT))["agreement"] == 0.5  # a lung that one misses counts 0
    members = votes_of(LEFT | RIGHT, LEFT | RIGHT, half | RIGHT)
    lungs = find_small_lungs(members)
    assert measure(GREY, members, None, lungs)["agreement"] == pytest.approx((1 + 2 * (dice + 1) / 2) / 3, abs=1e-4)
    assert measure(GREY, members[:1], None, lungs)["agreement"] == 1.0  # nobody to differ from
    assert measured(GREY, votes_of(GREY > 255))["agreement"] == 0.0
    assert measure(GREY, both, both, find_small_lungs(both, "image"), "image")["agreement"] == 1.0


def test_sizes_and_contact_are_shares() -> None:
    small = ellipse(180, 128, 40, 90)
    found = measured(GREY, votes_of(LEFT | small), aspect=0.25)
    assert found["lungs"] == 2 and found["aspect"] == 4
    assert found["area"] == pytest.approx((LEFT.sum() + small.sum()) / SIDE**2, abs=1e-4)
    assert found["ratio"] == pytest.approx(small.sum() / LEFT.sum(), abs=1e-4)
    assert found["side_contact"] == 0
    touching = RIGHT.copy()
    touching[100:164, 180:] = True
    assert measured(GREY, votes_of(LEFT | touching))["side_contact"] == 0.25
    assert measured(GREY, votes_of(LEFT))["ratio"] == measured(GREY, votes_of(LEFT))["shape_distance"] == 0


def test_measures_are_json_and_have_the_same_keys_whatever_is_found() -> None:
    found = [measured(GREY, votes) for votes in (votes_of(GREY > 255), votes_of(LEFT), votes_of(LEFT | RIGHT))]
    assert len({tuple(one) for one in found}) == 1
    assert all(json.loads(json.dumps(one, allow_nan=False)) == one for one in found)


def test_likeness_is_a_correlation_over_the_cells_within_the_film() -> None:
    typical = typical_chest().thumbnail
    assert likeness(typical) == pytest.approx(1)
    assert likeness(100 - 3 * typical) == pytest.approx(-1)
    cut = typical.copy()
    cut[:3] = np.nan
    assert likeness(cut) == pytest.approx(1)
    assert likeness(np.zeros((CELLS, CELLS))) == heart_side(np.zeros((CELLS, CELLS))) == 0


def test_a_thumbnail_shows_the_box_of_the_lungs_and_its_margin() -> None:
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[:, 128:] = 255
    lungs = {RIGHT_LUNG: np.zeros((SIDE, SIDE), bool), LEFT_LUNG: np.zeros((SIDE, SIDE), bool)}
    lungs[RIGHT_LUNG][64:192, 64:100] = lungs[LEFT_LUNG][64:192, 156:192] = True
    shown = thumbnail(square, lungs, typical_chest().box)
    assert np.isfinite(shown).all()
    assert (shown[:, :6] == 0).all() and (shown[:, 6:] == 255).all()
    alone = thumbnail(square, {RIGHT_LUNG: lungs[RIGHT_LUNG]}, typical_chest().box)
    assert np.array_equal(alone, shown)  # the other lung is taken to lie where its mirror image does
    lungs[RIGHT_LUNG][:64, 64:100] = True
    beyond = np.isnan(thumbnail(square, lungs, typical_chest().box))
    assert beyond[:1].all() and not beyond[2:].any()


def test_the_shape_of_two_lungs_does_not_depend_on_their_order_and_grows_unusual_with_a_cut(films: list[Film]) -> None:
    lungs = find_small_lungs(films[0][1])
    whole = [lungs[RIGHT_LUNG], lungs[LEFT_LUNG]]
    assert shape_distance(whole) == shape_distance(whole[::-1]) < THRESHOLDS.max_shape_distance
    cut = whole[0].copy()
    cut[np.flatnonzero(cut.any(1)).mean().astype(int) :] = False
    assert shape_distance([cut, whole[1]]) > THRESHOLDS.max_shape_distance


def test_the_shape_of_two_equal_boxes_is_known() -> None:
    boxes = [np.zeros((SIDE, SIDE), bool) for _ in range(2)]
    boxes[0][50:150, 40:90] = boxes[1][50:150, 140:190] = True
    log_ratio, log_fill, log_aspect, row, column, *forms = describe(*boxes)
    assert (log_ratio, log_fill, log_aspect) == pytest.approx((0, np.log(2 / 3), np.log(1.5)))
    assert (row, column) == pytest.approx((99.5 / SIDE, 114.5 / SIDE))
    one, other = np.reshape(forms, (2, 8))
    assert one[[0, 2, 3, 4, 5, 6]] == pytest.approx([0.495, 0, np.log(1 / 3), 0, 1, np.log(2)], abs=0.01)
    assert other[1] - one[1] == pytest.approx(2 / 3) and np.array_equal(np.delete(one, 1), np.delete(other, 1))


FINE = {
    "lungs": 2.0, "agreement": 0.97, "area": 0.25, "ratio": 0.8, "side_contact": 0.0, "shape_distance": 1.0,
    "likeness": 0.9, "heart_side": 3.0, "sharpness": 0.1, "aspect": 1.1,
}  # fmt: skip
EDGES = {
    "agreement": ("min_agreement", "opinions"), "area": ("min_area", "small"), "ratio": ("min_ratio", "size"),
    "side_contact": ("max_side_contact", "touch"), "shape_distance": ("max_shape_distance", "shape"),
    "likeness": ("min_likeness", "hardly"), "heart_side": ("min_heart_side", "mirrored"),
    "sharpness": ("min_sharpness", "blurred"), "aspect": ("max_aspect", "proportions"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_each_check_has_a_threshold_and_a_reason_of_its_own(name: str) -> None:
    key, word = EDGES[name]
    edge = getattr(THRESHOLDS, key)
    beyond = edge + (0.001 if key.startswith("max") else -0.001)
    assert judge({**FINE, name: edge}, THRESHOLDS) == (ACCEPTED, [])
    status, reasons = judge({**FINE, name: beyond}, THRESHOLDS)
    assert status == REVIEW and len(reasons) == 1 and word in reasons[0]
    assert judge({**FINE, name: beyond}, replace(THRESHOLDS, **{key: beyond})) == (ACCEPTED, [])


def test_every_threshold_is_used() -> None:
    used = {key for key, _ in EDGES.values()} | {"reject_likeness"}
    assert {field.name for field in fields(QualityConfig)} == used


def test_a_film_may_have_several_reasons_but_is_rejected_for_one() -> None:
    poor = {**FINE, "agreement": 0.5, "shape_distance": 4.0, "sharpness": 0.01}
    assert len(judge(poor, THRESHOLDS)[1]) == 3
    status, reasons = judge({**poor, "likeness": 0.1}, THRESHOLDS)
    assert status == REJECTED and reasons == ["not an upright frontal chest film (likeness 0.10)"]


def test_thresholds_are_read_and_refused_by_name() -> None:
    assert config_from_dict({"quality": {"min_agreement": 0.95}}).quality == replace(THRESHOLDS, min_agreement=0.95)
    old = config_to_dict(Config())
    del old["quality"]  # as in weights files written before there were checks
    assert config_from_dict(old) == Config()
    for wrong in ({"min_area": -0.1}, {"min_likeness": 0.1}, {"reject_likeness": -2}, {"min_agrement": 0.9}):
        with pytest.raises(ConfigError, match="quality"):
            config_from_dict({"quality": wrong})
