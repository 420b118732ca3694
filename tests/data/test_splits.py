"""Splits go by subject, and leaks are errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.data.prepare import prepare
from medssl.data.splits import check_no_leak, load_split, save_split, split_subjects
from medssl.errors import InputError

SUBJECTS = [f"s{i:02d}" for i in range(15)]


def test_the_same_seed_gives_the_same_split_in_whatever_order_subjects_come():
    parts = {"test": 5, "validation": 2, "train": 8}
    split = split_subjects(SUBJECTS, parts, seed=3)
    assert split == split_subjects([*reversed(SUBJECTS), "s01", "s01"], parts, seed=3)
    assert split != split_subjects(SUBJECTS, parts, seed=4)


def test_earlier_parts_stay_when_a_later_one_shrinks():
    many = split_subjects(SUBJECTS, {"test": 5, "validation": 2, "train": 8}, seed=0)
    few = split_subjects(SUBJECTS, {"test": 5, "validation": 2, "train": 2}, seed=0)
    assert (few["test"], few["validation"]) == (many["test"], many["validation"])
    assert set(few["train"]) < set(many["train"])


@given(
    st.integers(3, 60),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    st.integers(0, 5),
)
def test_fractions_share_all_subjects_out_without_overlap(count, weights, seed):
    subjects = [f"s{i}" for i in range(count)]
    fractions = {name: w / sum(weights) for name, w in zip("abc", weights, strict=True)}
    split = split_subjects(subjects, fractions, seed)
    assert sorted(s for members in split.values() for s in members) == sorted(subjects)
    assert all(split.values())
    assert all(len(split[name]) <= max(1, fractions[name] * count + 1) for name in "abc")


def test_exact_fractions_give_exact_counts():
    split = split_subjects([str(i) for i in range(10)], {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=1)
    assert [len(members) for members in split.values()] == [7, 1, 2]


def test_a_split_of_one_subject_is_refused():
    with pytest.raises(InputError, match=r"1 subject\(s\) cannot be split into 3 parts \(train, validation, test\)"):
        split_subjects(["only", "only"], {"train": 0.6, "validation": 0.2, "test": 0.2}, seed=0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": 14, "test": 2}, "asks for train 14, test 2 subjects; there are 15"),
        ({"train": 3, "test": 0}, "every part needs one"),
        ({"train": 0.9, "test": 0.3}, "fractions that sum to at most 1"),
        ({"train": 0.5, "test": 3}, "all counts, or all fractions"),
    ],
)
def test_parts_that_cannot_be_are_refused(parts, message):
    with pytest.raises(InputError, match=message):
        split_subjects(SUBJECTS, parts, seed=0)


def test_a_split_is_saved_and_loaded(tmp_path):
    split = split_subjects(SUBJECTS, {"train": 0.8, "test": 0.2}, seed=0)
    save_split(tmp_path / "split.json", split)
    assert load_split(tmp_path / "split.json") == split


def test_a_split_that_was_written_wrong_is_refused(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"train": ["a", "b"], "test": ["b"]}')
    with pytest.raises(InputError, match=r"split\.json: subject 'b' is in two parts, 'train' and 'test'"):
        load_split(path)
    path.write_text('["a", "b"]')
    with pytest.raises(InputError, match=r"split\.json: a split is"):
        load_split(path)


def test_a_subject_in_two_parts_is_a_leak(cohort, tmp_path, protocol):
    data = prepare(cohort, tmp_path / "out", protocol, jobs=1).dataset()
    check_no_leak({"train": data.select(["s0", "s1"]), "test": data.select(["s2"])})
    with pytest.raises(InputError, match="Subject 's1' is in two parts, 'train' and 'test': a leak"):
        check_no_leak({"train": data.select(["s0", "s1"]), "test": data.select(["s1", "s2"])})


def test_one_image_under_two_subjects_is_a_leak_even_in_another_format(cohort, tmp_path, protocol, write_image, brain):
    write_image(tmp_path / "other" / "renamed_T1w.nii", brain(2)[0].astype("float32"))
    manual = prepare(cohort, tmp_path / "manual", protocol, jobs=1).dataset()
    other = prepare(tmp_path / "other", tmp_path / "weak", jobs=1).dataset()
    with pytest.raises(
        InputError, match=r"Scan 'renamed' of part 'weak' and scan 's2' of part 'test' are the same image"
    ):
        check_no_leak({"weak": other, "test": manual})
    check_no_leak({"weak": other, "test": manual.select(["s0", "s1"])})
