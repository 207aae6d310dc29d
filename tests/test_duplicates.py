"""Copies of films are found and other films are not, on phantoms, and on real films where they are there."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import rankdata

from mask_rcnn.films import alignment, candidates, duplicates, known_groups
from mask_rcnn.films.alignment import agreements, sample
from mask_rcnn.films.duplicates import SIDE, find_groups, fingerprint
from mask_rcnn.films.groups import Groups
from mask_rcnn.films.radiograph import read_film

SCRIPTS = str(Path(__file__).resolve().parents[1] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

import make_phantoms  # noqa: E402
import measure_duplicates  # noqa: E402

Film = tuple[np.ndarray, np.ndarray]  # and its lungs

COUNT, COPIED = 16, 8


@pytest.fixture(scope="module")
def films() -> list[Film]:
    drawn = [make_phantoms.draw_phantom(np.random.default_rng([11, k]), (210, 192)) for k in range(COUNT)]
    return [(film, labels > 0) for film, labels in drawn]


@pytest.fixture(scope="module")
def prints(films: list[Film]) -> list[str]:
    return [fingerprint(film, lungs) for film, lungs in films]


def moved(lungs: np.ndarray, seed: int) -> np.ndarray:
    """Lungs as a U-Net finds them on a copy: the tip of one cut off, all of them a hundredth higher or lower."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(lungs.any(1))
    changed = lungs.copy()
    changed[rows[-1] - len(rows) // 20 :, : lungs.shape[1] // 2] = False
    return np.roll(changed, int(rng.integers(-1, 2)) * len(lungs) // 100, 0)


@pytest.mark.parametrize("name", sorted(measure_duplicates.CHANGES))
def test_copies_are_found_and_nothing_else(films: list[Film], prints: list[str], name: str) -> None:
    change = measure_duplicates.CHANGES[name]
    copies = []
    for seed, (film, lungs) in enumerate(films[:COPIED]):
        copy = np.ascontiguousarray(change(film))
        # Where lungs go when a film is cut or resized, its labels in two grey levels tell.
        turned = np.ascontiguousarray(change(np.where(lungs, 255, 0).astype(np.uint8))) if moves(name) else lungs * 255
        copies.append(fingerprint(copy, moved(turned > 127, seed)))
    groups = find_groups(prints + copies)
    assert groups[:COUNT] == list(range(COUNT)), "two phantoms are taken for one"
    assert groups[COUNT:] == list(range(COPIED))


def moves(name: str) -> bool:
    return any(word in name for word in ("cropped", "resized", "stretched", "padded"))


@pytest.mark.parametrize("seed", range(3))
def test_groups_do_not_depend_on_the_order(films: list[Film], prints: list[str], seed: int) -> None:
    texts = [*prints, *(fingerprint(film[6:, 4:], lungs[6:, 4:]) for film, lungs in films[:3]), prints[1], prints[0]]
    expected = {frozenset(np.flatnonzero(np.array(find_groups(texts)) == k).tolist()) for k in range(COUNT)}
    order = np.random.default_rng(seed).permutation(len(texts))
    found = np.array(find_groups([texts[k] for k in order]))
    assert {frozenset(order[found == k].tolist()) for k in set(found)} == expected
    assert all(found[k] == min(np.flatnonzero(found == found[k])) for k in range(len(found))), "named by its first film"


def test_copies_of_copies_are_one_group(monkeypatch: pytest.MonkeyPatch, prints: list[str]) -> None:
    chain = {(0, 4), (4, 9), (9, 2)}

    def only_neighbours(first: np.ndarray, second: np.ndarray, mappings: np.ndarray) -> np.ndarray:
        pairs = zip(map(index_of, first), map(index_of, second), strict=True)
        return np.array([float((a, b) in chain or (b, a) in chain) for a, b in pairs])

    thumbnails = duplicates._thumbnails(prints)

    def index_of(thumbnail: np.ndarray) -> int:
        return int(np.flatnonzero((thumbnails == thumbnail).all((1, 2)))[0])

    monkeypatch.setattr(candidates, "MAX_FILM_BITS", 128)  # every pair is a candidate
    monkeypatch.setattr(duplicates, "agreements", only_neighbours)
    groups = find_groups(prints)
    assert [k for k in range(COUNT) if groups[k] == 0] == [0, 2, 4, 9]
    assert len(set(groups)) == COUNT - 3


def test_few_films_make_no_trouble(prints: list[str]) -> None:
    assert find_groups([]) == []
    assert find_groups(prints[:1]) == [0]
    assert find_groups([prints[0], prints[0]]) == [0, 0]
    with pytest.raises(ValueError, match="reshape"):
        find_groups([prints[0][:-1]])


# Films that tell nothing


def test_films_of_one_level_are_copies_only_where_their_pixels_are_equal() -> None:
    black, white = np.zeros((80, 60), np.uint8), np.full((80, 60), 255, np.uint8)
    larger = np.zeros((160, 120), np.uint8)
    lettered = [black.copy(), larger.copy()]
    for film in lettered:
        cv2.putText(film, "L", (5, 30), cv2.FONT_HERSHEY_SIMPLEX, film.shape[0] / 80, 255, 1)
    films = [black, white, larger, *lettered, black.copy(), lettered[0].copy()]
    assert find_groups([fingerprint(film, None) for film in films]) == [0, 1, 2, 3, 4, 0, 3]


def test_noise_is_a_copy_of_itself_alone() -> None:
    noise = [np.random.default_rng(k % 6).integers(0, 256, (90, 90), np.uint8) for k in range(8)]
    assert find_groups([fingerprint(film, None) for film in noise]) == [0, 1, 2, 3, 4, 5, 0, 1]


# Fingerprints


def test_a_fingerprint_is_short_text(prints: list[str], films: list[Film]) -> None:
    assert {len(text) for text in prints} == {1048}
    assert all(text.isascii() and '"' not in text and "\\" not in text for text in prints)
    assert len({text[:16] for text in prints}) == COUNT
    film, lungs = films[0]
    assert fingerprint(film, None)[:16] == prints[0][:16] == fingerprint(film.copy(order="F"), lungs)[:16]
    assert fingerprint(film.reshape(-1, 2 * film.shape[1]), None)[:16] != prints[0][:16], "another shape is another film"


def test_the_thumbnail_is_the_films_whatever_its_exposure(films: list[Film]) -> None:
    film, lungs = films[0]
    levels = duplicates._thumbnails([fingerprint(film, lungs)])[0]
    expected = rankdata(cv2.resize(film.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)) / SIDE**2
    assert np.abs(levels - expected.reshape(SIDE, SIDE)).mean() < 0.01
    dark = (film * 0.4 + 3).astype(np.uint8)
    assert np.abs(duplicates._thumbnails([fingerprint(dark, lungs)])[0] - levels).mean() < 0.02


def test_the_lungs_middle() -> None:
    lungs = np.zeros((100, 200), bool)
    lungs[20:70, 40:60] = lungs[20:70, 140:160] = True
    np.testing.assert_allclose(duplicates._lungs_middle(lungs), (0.25, 0.22, 0.65, 0.78), atol=1e-6)
    lungs[70:80, 45] = True  # a tip of a fiftieth of the area
    np.testing.assert_allclose(duplicates._lungs_middle(lungs), (0.25, 0.22, 0.65, 0.78), atol=0.004)
    point = np.zeros((100, 100), bool)
    point[50, 50] = True
    for nothing in (None, np.zeros((9, 9), bool), point):
        np.testing.assert_array_equal(duplicates._lungs_middle(nothing), (0, 0, 1, 1))


def naive_candidates(bits: np.ndarray) -> dict[tuple[int, int], int]:
    """What is alike of each pair that is a candidate."""
    def differing(one: np.ndarray, other: np.ndarray) -> int:
        return sum((int(a) ^ int(b)).bit_count() for a, b in zip(one, other, strict=True))

    whole, inner, lungs = bits
    found = {}
    for one in range(bits.shape[2]):
        for other in range(one + 1, bits.shape[2]):
            films = differing(whole[:, one], whole[:, other])
            if films <= candidates.MAX_FILM_BITS:
                found[one, other] = 0
            elif differing(inner[:, one], whole[:, other]) <= candidates.MAX_FILM_BITS:
                found[one, other] = 1
            elif differing(whole[:, one], inner[:, other]) <= candidates.MAX_FILM_BITS:
                found[one, other] = 2
            elif differing(lungs[:, one], lungs[:, other]) + films // 2 <= candidates.MAX_LUNG_BITS:
                found[one, other] = candidates.LUNGS_ALIKE
    return found


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (5, 3), (64, 4096), (23, 1)])
def test_candidates_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int) -> None:
    rng = np.random.default_rng(1)
    bits = np.tile(np.repeat(rng.integers(0, 2**63, (1, 2, 6), np.uint64), 4, axis=2), (3, 1, 1))
    for part in range(3):  # from nothing to a third of the bits is changed
        for film in range(24):
            for word in range(2):
                chosen = rng.choice(64, int(rng.integers(0, 20)), replace=False).astype(np.uint64)
                bits[part, word, film] ^= np.bitwise_or.reduce(np.uint64(1) << chosen, initial=np.uint64(0))
    monkeypatch.setattr(candidates, "BLOCK_ROWS", rows)
    monkeypatch.setattr(candidates, "BLOCK_COLUMNS", columns)
    expected = naive_candidates(bits)
    pairs = np.concatenate([candidates.candidates(bits, range(start, start + 8)) for start in range(0, 24, 8)])
    assert sorted(map(tuple, pairs.tolist())) == sorted(expected)
    regions = np.tile(rng.uniform(0, 0.3, (24, 4)).astype(np.float32), 1) + np.array((0, 0, 0.6, 0.6), np.float32)
    one, other = pairs.T
    mappings = candidates.first_mappings(bits[..., one], bits[..., other], regions[one], regions[other])
    own = candidates.between(regions[one], regions[other])
    kinds = [expected[int(a), int(b)] for a, b in pairs]
    assert set(kinds) == {0, 1, 2, candidates.LUNGS_ALIKE}
    for mapping, of_lungs, kind in zip(mappings, own, kinds, strict=True):
        wanted = of_lungs if kind == candidates.LUNGS_ALIKE else candidates.STARTS[kind]
        np.testing.assert_array_equal(mapping, wanted)


@pytest.mark.parametrize("larger", [0, 1])
def test_a_cropped_film_without_lungs_is_found(films: list[Film], larger: int) -> None:
    for film, _ in films[:4]:
        pair = [fingerprint(film, None), fingerprint(film[8:-9, 9:-8], None)]
        assert find_groups(pair if larger == 0 else pair[::-1]) == [0, 0]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, films: list[Film], prints: list[str]) -> None:
    texts = [*prints, *(fingerprint(film[:-8], lungs[:-8]) for film, lungs in films[:6])]
    expected = find_groups(texts)
    for name, size in (("BLOCK_ROWS", 3), ("BLOCK_COLUMNS", 4)):
        monkeypatch.setattr(candidates, name, size)
    for name, size in (("BLOCK_BITS", 5), ("FILMS_A_TASK", 2), ("BLOCK_PAIRS", 1)):
        monkeypatch.setattr(duplicates, name, size)
    assert find_groups(texts) == expected and len(set(expected)) == COUNT


# What is kept from one search to the next


@pytest.fixture(scope="module")
def pool(films: list[Film], prints: list[str]) -> list[str]:
    """Fingerprints with chains of copies, the same pixels with other lungs, and films that tell nothing."""
    cut = [fingerprint(film[k:, k:], lungs[k:, k:]) for film, lungs in films[:6] for k in (3, 7, 11)]
    again = [fingerprint(film, np.roll(lungs, 9, 0)) for film, lungs in films[:3]]
    return [*prints[:12], *cut, *again, *(fingerprint(np.full((80, 60), level, np.uint8), None) for level in (0, 0, 255))]


@pytest.fixture(scope="module")
def ties(pool: list[str]) -> set[tuple[int, int]]:
    """The pairs of copies in the pool, each compared by itself."""
    order = sorted(range(len(pool)), key=pool.__getitem__)
    bits, regions = duplicates._bits([pool[k] for k in order]), duplicates._regions([pool[k] for k in order])
    thumbnails, found = duplicates._thumbnails([pool[k] for k in order]), set()
    for (one, other), kind in naive_candidates(bits).items():
        own = candidates.between(regions[[one]], regions[[other]])
        start = own if kind == candidates.LUNGS_ALIKE else candidates.STARTS[[kind]]
        telling = min(thumbnails[k].std() for k in (one, other)) >= duplicates.MIN_DEVIATION
        if telling and agreements(thumbnails[[one]], thumbnails[[other]], start)[0] >= duplicates.MIN_AGREEMENT:
            found.add((order[one], order[other]))
    return found


def plain_groups(pool: list[str], ties: set[tuple[int, int]], chosen: list[int]) -> list[int]:
    """The groups of some films of the pool, from all ties between them; of equal pixels the first film is compared."""
    groups = Groups(len(chosen))
    first: dict[str, int] = {}
    for place, film in enumerate(chosen):
        groups.join(place, first.setdefault(pool[film][: duplicates.DIGEST], place))
    for one in first.values():
        for other in first.values():
            if (chosen[one], chosen[other]) in ties:
                groups.join(one, other)
    return groups.firsts()


def test_what_is_known_changes_no_group(pool: list[str], ties: set[tuple[int, int]], tmp_path: Path) -> None:
    known, rng = tmp_path / "copies.npz", np.random.default_rng(3)
    everything = list(range(len(pool)))
    assert find_groups(pool, known) == plain_groups(pool, ties, everything) == find_groups(pool)
    assert 12 < len(set(find_groups(pool))) < 20, "chains of copies"
    for _ in range(12):  # films vanish, come, and come back, in any order
        chosen = rng.permutation(len(pool))[: int(rng.integers(1, len(pool) + 1))].tolist()
        expected = plain_groups(pool, ties, chosen)
        assert find_groups([pool[k] for k in chosen], known) == expected
        assert find_groups([pool[k] for k in chosen], known) == expected


def test_a_group_that_lost_a_film_is_searched_again(
    monkeypatch: pytest.MonkeyPatch, prints: list[str], tmp_path: Path
) -> None:
    thumbnails = duplicates._thumbnails(prints)

    def neighbours(first: np.ndarray, second: np.ndarray, mappings: np.ndarray) -> np.ndarray:
        index = [[int(np.flatnonzero((thumbnails == one).all((1, 2)))[0]) for one in side] for side in (first, second)]
        return np.array([float(abs(one - other) == 1) for one, other in zip(*index, strict=True)])

    monkeypatch.setattr(candidates, "MAX_FILM_BITS", 128)  # every pair is a candidate
    monkeypatch.setattr(duplicates, "agreements", neighbours)
    known = tmp_path / "copies.npz"
    assert find_groups(prints[:5], known) == [0] * 5
    assert find_groups([*prints[:2], *prints[3:5]], known) == [0, 0, 2, 2], "the film between is gone"
    assert find_groups(prints[:5], known) == [0] * 5, "and back"
    assert find_groups(prints[5:7], known) == [0, 0] and find_groups([], known) == []


def test_known_films_are_not_compared_again(monkeypatch: pytest.MonkeyPatch, pool: list[str], tmp_path: Path) -> None:
    known, compared = tmp_path / "copies.npz", []
    plain = duplicates.candidates

    def counting(bits: np.ndarray, rows: range) -> np.ndarray:
        compared.extend(rows)
        return plain(bits, rows)

    monkeypatch.setattr(duplicates, "candidates", counting)
    films = pool[:30]  # all of different pixels
    find_groups(films[4:], known)
    written = known.read_bytes()
    compared.clear()
    find_groups(films[:3:-1], known)
    assert not compared and known.read_bytes() == written
    find_groups(films, known)
    assert len(compared) == 4, "the new ones alone"


@pytest.mark.parametrize("spoilt", ["format", "torn", "part", "other"])
def test_a_file_of_another_format_is_set_aside(
    pool: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    known = tmp_path / "copies.npz"
    expected = find_groups(pool, known)
    with np.load(known) as file:
        content = dict(file)
    if spoilt == "torn":
        known.write_bytes(known.read_bytes()[:-90])
    elif spoilt == "other":
        known.write_bytes(b"no archive")
    else:
        other = {"format": known_groups.FORMAT + 1} if spoilt == "format" else {"keys": content["keys"][1:]}
        np.savez(known, **content | other)
    before = known.read_bytes()
    with caplog.at_level("INFO", "mask_rcnn"):
        assert find_groups(pool, known) == expected
    assert (tmp_path / "copies-earlier.npz").read_bytes() == before
    assert f"{known}: " in caplog.text and "set aside as copies-earlier.npz" in caplog.text
    assert caplog.text.count("\n") == 1 and known.exists()


def test_joined_groups_are_named_by_their_first_film() -> None:
    groups = Groups(6)
    for one, other in ((4, 2), (5, 4), (1, 3), (3, 1)):
        groups.join(one, other)
    assert groups.firsts() == [0, 1, 2, 1, 2, 2] and groups.first(5) == 2


def test_groups_equal_a_search_along_the_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ties = rng.integers(0, 30, (rng.integers(0, 40), 2)).tolist()
        groups, reached = Groups(30), [{film} for film in range(30)]
        for one, other in ties:
            groups.join(one, other)
        for _ in range(30):
            for one, other in ties:
                reached[one] |= reached[other]
                reached[other] |= reached[one]
        assert groups.firsts() == [min(films) for films in reached]


# Thumbnails laid over each other


def naive_sample(thumbnail: np.ndarray, mapping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    side = len(thumbnail)
    values, inside = np.zeros((side, side)), np.zeros((side, side), bool)
    for row in range(side):
        for column in range(side):
            y = mapping[0] * (row + 0.5) / side + mapping[1]
            x = mapping[2] * (column + 0.5) / side + mapping[3]
            inside[row, column] = 0 < y < 1 and 0 < x < 1
            y, x = (min(max(at * side - 0.5, 0), side - 1) for at in (y, x))
            top, left = min(int(y), side - 2), min(int(x), side - 2)
            (a, b), (c, d) = thumbnail[top : top + 2, left : left + 2]
            y, x = y - top, x - left
            values[row, column] = (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d)
    return values, inside


def test_sampling_is_bilinear() -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.random((5, SIDE, SIDE), np.float32)
    mappings = np.array(
        [(1, 0, 1, 0), (0.5, 0.25, 0.5, 0.25), (1.1, -0.05, 0.9, 0.02), (1, 0.3, 1, -0.3), (2, -0.5, 0.7, 0)], np.float32
    )
    values, inside = sample(thumbnails, mappings)
    np.testing.assert_allclose(values[0], thumbnails[0], atol=1e-6)
    for k in range(5):
        expected, expected_inside = naive_sample(thumbnails[k], mappings[k])
        np.testing.assert_allclose(values[k], expected, atol=1e-4)
        np.testing.assert_array_equal(inside[k], expected_inside)


def test_ranks_are_mean_ranks_among_the_pixels_inside() -> None:
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 256, (4, 300)) / 255
    inside = rng.random((4, 300)) < 0.7
    ranks = alignment._ranks(levels, inside)
    for k in range(4):
        expected = (rankdata(levels[k, inside[k]]) - 0.5) / inside[k].sum()
        np.testing.assert_allclose(ranks[k, inside[k]], expected, atol=1e-12)


@pytest.mark.parametrize("mapping", [(1, 0, 1, 0), (0.93, 0.04, 1, 0), (1.06, -0.05, 0.95, 0.01), (0.9, 0.05, 0.9, 0.05)])
def test_alignment_finds_the_way_back(films: list[Film], mapping: tuple[float, ...]) -> None:
    large = np.stack([cv2.resize(film, (320, 320)) for film, _ in films[:6]]).astype(np.float32) / 255
    wanted = np.tile(np.array(mapping, np.float32), (6, 1))
    thumbnails = np.stack([cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for film in large])
    other = np.stack([cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for film in sample(large, wanted)[0]])
    start = np.tile(np.array((1, 0, 1, 0), np.float32), (6, 1))
    assert agreements(other, thumbnails, start).min() > 0.997
    found = start
    for _ in range(6):
        found, correlations = alignment._improve(other, thumbnails, found)
    np.testing.assert_allclose(found, wanted, atol=0.025)
    assert correlations.min() > 0.95


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_agreement_does_not_depend_on_which_comes_first(films: list[Film], scale: float) -> None:
    thumbnails = duplicates._thumbnails([fingerprint(film, None) for film, _ in films[:6]])
    mapping = np.tile(np.array((scale, 0.5 - scale / 2, scale, 0.5 - scale / 2), np.float32), (6, 1))
    others = sample(thumbnails, mapping)[0]
    inverse = np.tile(np.array((1 / scale, 0.5 - 0.5 / scale, 1 / scale, 0.5 - 0.5 / scale), np.float32), (6, 1))
    one, other = agreements(others, thumbnails, mapping), agreements(thumbnails, others, inverse)
    assert one.min() > 0.99
    np.testing.assert_allclose(one, other, atol=2e-3)


def test_agreement_is_one_for_the_same_and_low_for_another(films: list[Film], prints: list[str]) -> None:
    thumbnails = duplicates._thumbnails(prints)
    start = np.tile(np.array((1, 0, 1, 0), np.float32), (COUNT, 1))
    np.testing.assert_allclose(agreements(thumbnails, thumbnails, start), 1, atol=1e-9)
    others = agreements(thumbnails, np.roll(thumbnails, 1, 0), start)
    assert others.max() < duplicates.MIN_AGREEMENT
    assert (agreements(thumbnails, thumbnails[:, ::-1], start) == 0).all(), "upside down is given up at once"


def test_wild_starts_are_given_up_quietly(prints: list[str]) -> None:
    thumbnails = duplicates._thumbnails(prints)
    rng = np.random.default_rng(0)
    for scale in (1 / 3, 1.0, 3.0):
        starts = np.column_stack([np.full(COUNT, scale), rng.uniform(-3, 3, COUNT)] * 2).astype(np.float32)
        found = agreements(thumbnails, np.roll(thumbnails, 1, 0), starts)
        assert np.isfinite(found).all() and found.max() < duplicates.MIN_AGREEMENT
    away = np.tile(np.array((1, 2, 1, 2), np.float32), (COUNT, 1))
    assert not agreements(thumbnails, thumbnails, away).any(), "nothing overlaps"


def test_agreement_of_a_thumbnail_of_one_level_is_none() -> None:
    flat = np.full((2, SIDE, SIDE), 0.5, np.float32)
    start = np.tile(np.array((1, 0, 1, 0), np.float32), (2, 1))
    assert agreements(flat, flat, start).tolist() == [0, 0]


# Real films


def test_the_same_film_in_two_collections_is_found(shared_data: Path) -> None:
    """Twelve films of ``shenzhen`` lie in another collection too, as squares of 299 pixels."""
    squares = sorted((shared_data / "kaggle" / "COVID-19_Radiography_Dataset" / "Normal" / "images").glob("*.png"))
    originals = sorted((shared_data / "shenzhen" / "images").glob("*"))[:80]
    groups = find_groups([fingerprint(read_film(path), None) for path in originals + squares])
    names = [path.stem for path in originals]
    assert [groups[len(names) + k] for k in range(12)] == [
        names.index(f"CHNCXR_{int(path.stem.split('-')[1]):04d}_0") for path in squares
    ]
    assert groups[: len(names)] == list(range(len(names)))
