"""Labels are drawn alike for all arms and apart for all seeds; nobody of the test is pretrained on."""

import json
from pathlib import Path

import pytest

from medssl.data.catalog import Scan
from medssl.efficiency_study import draw_subsets, scans_to_pretrain_on, split_study, weakly_labelled
from medssl.errors import InputError

POOL = [f"s{number}" for number in range(6)]
PARTS = {"test": ("t",), "validation": ("v",), "pool": ("p", "q")}


def scan(name: str, label: str | None = None, protocol: str | None = None, folder: str = "a") -> Scan:
    return Scan(name, name, Path(folder) / f"{name}.nii", None if label is None else Path(label), protocol)


@pytest.mark.parametrize("draw", range(20))
def test_a_seeds_larger_subset_holds_its_smaller_ones_and_seeds_differ(draw: int) -> None:
    subsets = draw_subsets(POOL, (1, 2, 5), (0, 1, 2, 3), draw)
    for seed in range(4):
        assert set(subsets[1, seed]) < set(subsets[2, seed]) < set(subsets[5, seed])
    for count in (1, 2, 5):
        assert len({subsets[count, seed] for seed in range(4)}) == 4
        assert all(len(subsets[count, seed]) == count for seed in range(4))


def test_a_seed_that_is_added_changes_none_before_it() -> None:
    few, more = draw_subsets(POOL, (1, 3), (0, 1), 7), draw_subsets(POOL, (1, 3), (0, 1, 5), 7)
    assert few.items() <= more.items()
    assert draw_subsets(POOL[::-1], (1, 3), (0, 1), 7) == few


def test_more_seeds_than_subsets_still_get_one_each() -> None:
    subsets = draw_subsets(POOL[:2], (1, 2), (0, 1, 2), 0)
    assert len(subsets) == 6
    assert {subsets[2, seed] for seed in range(3)} == {("s0", "s1")}


def test_over_many_draws_every_subject_is_drawn_as_often() -> None:
    first = [draw_subsets(POOL, (1,), (0,), draw)[1, 0][0] for draw in range(600)]
    assert all(70 < first.count(subject) < 135 for subject in POOL)  # 100 expected, sd 9


def test_the_pool_is_what_test_and_validation_leave() -> None:
    parts = split_study(POOL, None, 2, 1, 3, seed=0)
    assert [len(parts[name]) for name in ("test", "validation", "pool")] == [2, 1, 3]
    assert split_study(POOL, None, 2, 2, 2, seed=0)["test"] == parts["test"]


def test_a_pool_that_is_too_small_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"asks for 4 .* of 6, 2 are for the test and 1 for validation.* holds 3"):
        split_study(POOL, None, 2, 1, 4, seed=0)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["s0"], "test": ["s1"]}))
    with pytest.raises(InputError, match="parts are test, validation and pool; got test, train"):
        split_study(POOL, tmp_path / "split.json", 2, 1, 1, seed=0)


def test_pretraining_sees_the_pool_and_all_unlabelled_but_test_and_validation_once() -> None:
    labelled = [scan(name, "l.nii") for name in "tvpq"]
    unlabelled = [scan(name, folder="b") for name in "tpx"]
    assert [one.name for one in scans_to_pretrain_on(unlabelled, labelled, PARTS)] == ["p", "q", "x"]


def test_weak_labels_are_those_with_a_reading_of_others_than_the_test() -> None:
    labelled = [scan("p", "own.mgz", "aseg")]
    weak = [scan("x", "x.mgz", "aseg"), scan("y"), scan("t", "t.mgz", "aseg"), scan("p", "own.mgz", "aseg")]
    assert [one.name for one in weakly_labelled(weak, labelled, PARTS, None)] == ["x"]
    unread = [scan("x", "x.nii")]
    assert weakly_labelled(unread, labelled, PARTS, None) == []
    assert weakly_labelled(unread, labelled, PARTS, "same") == unread
