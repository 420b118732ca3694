"""The arms are those of the paper's table, and a budget is shared out over all of them."""

import pytest

from medssl.arms import Steps, arms, pairs_to_compare, steps_in_budget
from medssl.errors import InputError


def test_four_arms_each_after_the_one_it_starts_from() -> None:
    four = arms(Steps(100, 40))
    assert [arm.name for arm in four] == ["weak only", "manual only", "weak + fine-tuning", "weak + ECB"]
    assert [arm.steps for arm in four] == [100, 140, 40, 40]
    assert all(arm.start is None or four.index(arm.start) < i for i, arm in enumerate(four))
    assert [arm.boosted for arm in four] == [False, False, False, True]


def test_the_fifth_arm_has_manual_labels_for_the_steps_of_fine_tuning() -> None:
    short = next(arm for arm in arms(Steps(100, 40), short_manual=True) if arm.name == "manual only, short")
    assert (short.steps, short.labels, short.start) == (40, "manual", None)
    assert ("manual only, short", "weak + fine-tuning") in pairs_to_compare(short_manual=True)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_all_arms_together_take_the_budget(short: bool, ratio: float) -> None:
    steps = steps_in_budget(3600, 0.9, ratio, short)
    assert 0.99 < 0.9 * sum(arm.steps for arm in arms(steps, short)) / 3600 <= 1
    assert steps.finetune == pytest.approx(ratio * steps.pretrain, abs=2)


def test_a_budget_that_is_too_small_says_what_would_do() -> None:
    with pytest.raises(InputError, match=r"give at least 0\.8"):
        steps_in_budget(6, 1.0, 1.0)
    steps_in_budget(0.84 * 60, 1.0, 1.0)


def test_every_comparison_is_of_arms_that_there_are() -> None:
    for short in (False, True):
        names = {arm.name for arm in arms(Steps(10, 10), short)}
        assert {name for pair in pairs_to_compare(short) for name in pair} <= names
