"""Bagging against the reference's vectors, and against loops that spell it out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from mask_rcnn.bag.agreement import agreement, film_agreement
from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.bag.vote import bag_film, majority
from mask_rcnn.config import BagConfig
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.utils import mask_box

PARITY = Path(__file__).resolve().parent / "parity" / "pipeline.npz"


def blob(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A ragged shape with holes, spurs and crumbs, which may touch the film's edges."""
    return ndimage.gaussian_filter(rng.normal(size=shape), 2.5) > rng.uniform(-0.05, 0.05)


def naive_opening(mask: np.ndarray, side: int) -> np.ndarray:
    """Opening pixel by pixel: what lies beyond the film's edge erodes nothing and adds nothing."""
    height, width = mask.shape
    offsets = [k - side // 2 for k in range(side)]
    eroded = np.zeros_like(mask)
    for y, x in np.ndindex(mask.shape):
        around = [(y + dy, x + dx) for dy in offsets for dx in offsets]
        eroded[y, x] = all(mask[p, q] for p, q in around if 0 <= p < height and 0 <= q < width)
    back = [-offset for offset in offsets]
    opened = np.zeros_like(mask)
    for y, x in np.ndindex(mask.shape):
        around = [(y + dy, x + dx) for dy in back for dx in back]
        opened[y, x] = any(eroded[p, q] for p, q in around if 0 <= p < height and 0 <= q < width)
    return opened


def largest_part(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = [np.count_nonzero(parts == part) for part in range(1, count + 1)]
    return parts == 1 + int(np.argmax(sizes)) if count else np.zeros_like(mask)


def detection(masks: dict[int, np.ndarray], scores: dict[int, float]) -> dict[str, np.ndarray]:
    """What a member detects, in the form that ``MaskRCNN.detect`` gives it."""
    return {
        "rois": np.array([mask_box(mask) for mask in masks.values()], np.int32).reshape(-1, 4),
        "class_ids": np.array(list(masks), np.int32),
        "scores": np.array([scores[category] for category in masks], np.float32),
        "masks": np.stack(list(masks.values()), axis=-1),
        "windows": np.array([mask_box(mask) for mask in masks.values()], np.int32).reshape(-1, 4),
    }


def rectangle(shape: tuple[int, int], y1: int, x1: int, y2: int, x2: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def bag_one(masks: np.ndarray, bag: BagConfig, scores: np.ndarray | None = None) -> Lung | None:
    """The lung that the bag makes of one lung's masks [n, height, width]; members beyond them have found nothing."""
    scores = np.ones(len(masks)) if scores is None else scores
    members = [
        {"class_ids": np.array([LEFT_LUNG]), "scores": np.array([score]), "masks": mask[..., None],
         "windows": np.array([mask_box(mask)])}
        for mask, score in zip(masks, scores, strict=True)
    ]
    nothing = {"class_ids": np.zeros(0, int), "scores": np.zeros(0), "masks": np.zeros((*masks.shape[1:], 0), bool)}
    return bag_film([*members, *[nothing] * (bag.members - len(masks))], bag).get(LEFT_LUNG)


@pytest.mark.parametrize("case", range(4))
def test_bag_is_the_references_but_for_its_shift(case: int) -> None:
    """The reference's opening with a square of 4 moves every mask one pixel down and right."""
    with np.load(PARITY) as vectors:
        masks = np.unpackbits(vectors[f"bag_masks_{case}"], axis=1)[:, :400].astype(bool)
        expected = np.unpackbits(vectors[f"bag_mask_{case}"], axis=0)[:400].astype(bool)
        lung = bag_one(masks, BagConfig(opening=4), vectors[f"bag_scores_{case}"])
        assert lung is not None and lung.mask.dtype == bool and lung.votes == len(masks)
        assert lung.mask.any() and np.array_equal(lung.mask[:-1, :-1], expected[1:, 1:])
        assert lung.score == pytest.approx(float(vectors[f"bag_score_{case}"]), abs=1e-12)


@pytest.mark.parametrize("opening", [1, 2, 3, 4, 5])
def test_a_bagged_mask_equals_the_loop(opening: int) -> None:
    rng = np.random.default_rng(opening)
    bag = BagConfig(min_votes=2, opening=opening)
    for count in (1, 2, 3, 5):
        masks = np.stack([blob(rng, (37, 29)) for _ in range(count)])
        expected = largest_part(naive_opening(masks.sum(0) >= min(2, count), opening))
        lung = bag_one(masks, bag)
        assert np.array_equal(np.zeros_like(expected) if lung is None else lung.mask, expected)


def test_an_even_opening_leaves_a_lung_in_its_place() -> None:
    mask = rectangle((40, 30), 5, 6, 25, 20)
    lung = bag_one(mask[None], BagConfig(opening=4))
    assert lung is not None and np.array_equal(lung.mask, mask)


@pytest.mark.parametrize(("found", "needed"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 3)])
def test_a_pixel_needs_three_votes_or_all_there_are(found: int, needed: int) -> None:
    # Member k predicts rows 10 k and below, so the first row of the lung tells the votes that were needed.
    masks = np.stack([rectangle((80, 20), 10 * k, 0, 80, 20) for k in range(found)])
    lung = bag_one(masks, BagConfig(opening=1))
    assert lung is not None and lung.box[0] == 10 * (needed - 1)


def test_nothing_survives_where_members_agree_on_no_pixel() -> None:
    masks = np.stack([rectangle((30, 30), 0, 0, 10, 10), rectangle((30, 30), 20, 20, 30, 30)])
    assert bag_one(masks, BagConfig()) is None


def test_majority_of_few_members() -> None:
    assert [majority(count, 3) for count in range(1, 8)] == [1, 2, 2, 3, 3, 3, 3]
    assert majority(5, 1) == 1


def test_agreement() -> None:
    lower, upper = rectangle((10, 10), 0, 0, 6, 10), rectangle((10, 10), 4, 0, 10, 10)
    nothing = np.zeros((10, 10), bool)
    assert agreement(np.stack([lower, lower, lower])) == 1
    assert agreement(np.stack([lower, upper])) == pytest.approx(2 * 20 / 120)
    assert agreement(np.stack([lower, lower, upper])) == pytest.approx((1 + 2 / 3) / 3)
    assert agreement(np.stack([lower, nothing])) == 0
    assert math.isnan(agreement(np.stack([lower]))) and math.isnan(agreement(np.stack([nothing, nothing])))


def naive_film_agreement(members: list[dict[int, np.ndarray]]) -> float:
    """The least over the lungs of the mean Dice over all pairs of members' lungs, {category: mask}; none is 0."""
    of_lungs = []
    for category in (LEFT_LUNG, RIGHT_LUNG):
        dices = []
        for i in range(len(members)):
            for j in range(i + 1, len(members)):
                one, other = members[i].get(category), members[j].get(category)
                both_found = one is not None and other is not None
                dices.append(2 * (one & other).sum() / (one.sum() + other.sum()) if both_found else 0.0)
        of_lungs.append(sum(dices) / len(dices))
    return min(of_lungs)


@pytest.mark.parametrize("left_missing", range(5))
@pytest.mark.parametrize("right_missing", range(3))
def test_film_agreement_equals_the_loop_over_all_pairs(left_missing: int, right_missing: int) -> None:
    rng, shape = np.random.default_rng(left_missing), (90, 120)
    members = [
        {
            LEFT_LUNG: rectangle(shape, *(np.array([20, 70, 80, 110]) + rng.integers(-6, 7, 4))),
            RIGHT_LUNG: rectangle(shape, *(np.array([6, 6, 85, 45]) + rng.integers(-6, 6, 4))),
        }
        for _ in range(5)
    ]
    for k in range(left_missing):
        del members[k][LEFT_LUNG]
    for k in range(right_missing):
        del members[4 - k][RIGHT_LUNG]
    # A member that found nothing leaves no masks to bag; it counts all the same.
    lungs = bag_film([detection(member, {LEFT_LUNG: 0.9, RIGHT_LUNG: 0.9}) for member in members if member], BagConfig())
    assert film_agreement(lungs, 5) == pytest.approx(naive_film_agreement(members))


def test_film_agreement_at_its_ends() -> None:
    shape = (40, 60)
    left, right = rectangle(shape, 5, 35, 35, 55), rectangle(shape, 5, 5, 35, 25)
    both, scores = {LEFT_LUNG: left, RIGHT_LUNG: right}, {LEFT_LUNG: 0.9, RIGHT_LUNG: 0.9}
    alike = bag_film([detection(both, scores)] * 3, BagConfig())
    assert film_agreement(alike, 3) == 1
    assert math.isnan(film_agreement(alike, 1)) and math.isnan(film_agreement({}, 1))
    assert film_agreement({}, 2) == 0
    one_sided = bag_film([detection({LEFT_LUNG: left}, scores)] * 3, BagConfig())
    assert one_sided[LEFT_LUNG].agreement == 1 and film_agreement(one_sided, 3) == 0
    # The same pixels under the other name agree with nothing.
    swapped = detection({LEFT_LUNG: right, RIGHT_LUNG: left}, scores)
    lungs = bag_film([detection(both, scores), detection(both, scores), swapped], BagConfig())
    assert film_agreement(lungs, 3) == pytest.approx(1 / 3)


def test_bag_film_works_on_a_crop_as_on_the_whole_film() -> None:
    rng, shape = np.random.default_rng(4), (90, 120)
    left = [rectangle(shape, *(np.array([20, 70, 80, 110]) + rng.integers(-3, 4, 4))) for _ in range(5)]
    right = [rectangle(shape, *(np.array([0, 0, 85, 45]) + rng.integers(0, 4, 4))) for _ in range(4)]
    members = [detection({LEFT_LUNG: mask}, {LEFT_LUNG: 0.7 + k / 20}) for k, mask in enumerate(left)]
    for k, mask in enumerate(right):
        members[k] = detection({LEFT_LUNG: left[k], RIGHT_LUNG: mask}, {LEFT_LUNG: 0.7 + k / 20, RIGHT_LUNG: 0.8})
    lungs = bag_film(members, BagConfig())
    assert list(lungs) == [LEFT_LUNG, RIGHT_LUNG]
    for category, masks in ((LEFT_LUNG, left), (RIGHT_LUNG, right)):
        lung = lungs[category]
        expected = largest_part(naive_opening(np.sum(masks, axis=0) >= 3, BagConfig().opening))
        assert np.array_equal(lung.mask, expected) and lung.box == mask_box(expected)
        assert lung.votes == len(masks) and lung.agreement == pytest.approx(agreement(np.stack(masks)))
    assert lungs[LEFT_LUNG].score == pytest.approx(0.8) and lungs[RIGHT_LUNG].score == pytest.approx(0.8)


def test_the_best_detection_of_a_member_counts() -> None:
    shape = (60, 60)
    good, bad = rectangle(shape, 10, 10, 50, 30), rectangle(shape, 0, 30, 60, 60)
    member = {
        "rois": np.array([mask_box(bad), mask_box(good)], np.int32),
        "class_ids": np.array([LEFT_LUNG, LEFT_LUNG], np.int32),
        "scores": np.array([0.71, 0.93], np.float32),
        "masks": np.stack([bad, good], axis=-1),
        "windows": np.array([mask_box(bad), mask_box(good)], np.int32),
    }
    lungs = bag_film([member], BagConfig())
    assert list(lungs) == [LEFT_LUNG] and np.array_equal(lungs[LEFT_LUNG].mask, good)
    assert lungs[LEFT_LUNG].score == pytest.approx(0.93) and math.isnan(lungs[LEFT_LUNG].agreement)


def test_pixels_claimed_twice_go_to_more_votes_then_to_the_higher_score() -> None:
    shape = (40, 60)
    left, wide, right = (rectangle(shape, 0, x1, 40, x2) for x1, x2 in ((30, 60), (20, 60), (0, 40)))
    scores = {LEFT_LUNG: 0.8, RIGHT_LUNG: 0.9}
    # Columns 20 to 30: left has one vote of one member in four, too few; 30 to 40: left has four votes, right three.
    members = [detection({LEFT_LUNG: left, RIGHT_LUNG: right}, scores) for _ in range(3)]
    members.append(detection({LEFT_LUNG: wide}, scores))
    lungs = bag_film(members, BagConfig())
    assert np.array_equal(lungs[LEFT_LUNG].mask, left) and lungs[LEFT_LUNG].box == (0, 30, 40, 60)
    assert lungs[RIGHT_LUNG].box == (0, 0, 40, 30)
    # Three votes each: the right lung has the higher score.
    lungs = bag_film(members[:3], BagConfig())
    assert lungs[LEFT_LUNG].box == (0, 40, 40, 60) and lungs[RIGHT_LUNG].box == (0, 0, 40, 40)
    assert not (lungs[LEFT_LUNG].mask & lungs[RIGHT_LUNG].mask).any()
    # A lung that another swallows whole is not found.
    inner = detection({LEFT_LUNG: rectangle(shape, 10, 10, 20, 20), RIGHT_LUNG: right}, scores)
    assert list(bag_film([inner], BagConfig())) == [RIGHT_LUNG]


def test_no_detection_no_lung() -> None:
    nothing = {
        "rois": np.zeros((0, 4), np.int32),
        "class_ids": np.zeros(0, np.int32),
        "scores": np.zeros(0, np.float32),
        "masks": np.zeros((30, 20, 0), bool),
    }
    assert bag_film([nothing] * 5, BagConfig()) == {}
    thread = detection({RIGHT_LUNG: rectangle((30, 20), 2, 2, 30, 4)}, {RIGHT_LUNG: 1.0})
    assert bag_film([thread], BagConfig()) == {}, "two columns do not survive an opening of four"
    assert list(bag_film([thread], BagConfig(opening=2))) == [RIGHT_LUNG]


def test_label_mask() -> None:
    shape = (30, 40)
    left, right = rectangle(shape, 0, 20, 30, 40), rectangle(shape, 0, 0, 30, 15)
    member = detection({LEFT_LUNG: left, RIGHT_LUNG: right}, {LEFT_LUNG: 0.9, RIGHT_LUNG: 0.9})
    labels = label_mask(bag_film([member], BagConfig()), shape)
    assert labels.dtype == np.uint8 and np.array_equal(labels, left * LEFT_LUNG + right * RIGHT_LUNG)
    assert not label_mask({}, shape).any()
