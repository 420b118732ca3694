"""What is chosen is kept, what is not becomes background, and what is unknown is refused."""

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.labels.chosen import choose
from medssl.labels.lut import LabelSet, Structure

ORGANS = LabelSet("organs", tuple(Structure(i, n, (i, 0, 0)) for i, n in ((1, "spleen"), (5, "liver"), (9, "colon"))))


def test_the_chosen_are_classes_in_the_tables_order_and_the_others_background() -> None:
    reading = choose(ORGANS, ["colon", "spleen"])
    assert reading.target.names == ("spleen", "colon")
    assert reading.apply(np.array([0, 1, 5, 9])).tolist() == [0, 1, 0, 2]


def test_without_names_all_are_kept() -> None:
    assert choose(ORGANS).target.structures == ORGANS.structures


def test_a_number_that_the_table_lacks_is_refused_with_its_voxels() -> None:
    with pytest.raises(InputError, match=r"no rule for these labels: 7 \(2 voxels\)"):
        choose(ORGANS, ["liver"]).apply(np.array([7, 7, 5]))


@pytest.mark.parametrize(("names", "told"), [(["lver"], "no structure 'lver'; it has spleen"), ([], "No structure is")])
def test_a_wrong_choice_lists_the_right_ones(names: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        choose(ORGANS, names)
