"""Scores of sound and sight against naive loops and values computed by hand."""

from math import isnan, log2

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.evaluation.audio_visual import correspondence, cross_modal_ndcg, discs, localisation


def test_correspondence_counts_what_a_loop_counts():
    draw = np.random.default_rng(0)
    true, false = draw.normal(0.7, 1, 50), draw.normal(-0.2, 1, 50)
    found = correspondence(true, false)
    assert found.accepted == sum(score > 0 for score in true) / 50
    assert found.rejected == sum(score < 0 for score in false) / 50
    assert found.accuracy == pytest.approx((found.accepted + found.rejected) / 2)
    assert found.ranked == sum(a > b for a, b in zip(true, false, strict=True)) / 50
    assert found.n == 50


def test_a_network_that_says_the_same_of_all_pairs_is_right_by_half():
    for score in (-3.0, 0.0, 3.0):
        found = correspondence(np.full(8, score), np.full(8, score))
        assert found.accuracy == found.ranked == 0.5


def test_probabilities_have_another_threshold():
    assert correspondence([0.6, 0.9], [0.4, 0.1], threshold=0.5).accuracy == 1
    assert correspondence([0.6, 0.9], [0.4, 0.1]).accuracy == 0.5


def naive_hit(heat, mask):
    """The mean, over the cells that are the maximum, of the mask at the cell's middle."""
    (h, w), (height, width) = heat.shape, mask.shape
    found = []
    for r in range(h):
        for c in range(w):
            if heat[r, c] == heat.max():
                found.append(mask[int((r + 0.5) * height / h), int((c + 0.5) * width / w)])
    return np.mean(found)


def test_localisation_hits_where_a_loop_does():
    draw = np.random.default_rng(1)
    heat = draw.integers(0, 6, (30, 5, 7)).astype(float)  # with ties
    masks = draw.random((30, 20, 24)) < 0.3
    masks[4] = False
    found = localisation(heat, masks)
    expected = [naive_hit(one, mask) for one, mask in zip(heat, masks, strict=True)]
    assert isnan(found.hits[4]) and found.n == 29
    kept = np.arange(30) != 4
    np.testing.assert_allclose(found.hits[kept], np.array(expected)[kept])
    assert found.hit_rate == pytest.approx(np.array(expected)[kept].mean())
    assert found.chance == pytest.approx(masks[kept].mean())
    assert found.centre == pytest.approx(masks[kept][:, 9:11, 11:13].mean())


def test_a_heat_map_of_the_mask_always_hits_and_its_negative_never():
    x, y = np.array([5.0, 20.0, 30.0]), np.array([6.0, 10.0, 25.0])
    masks = discs(x, y, [4.0, 5.0, 6.0], (32, 40))
    assert localisation(masks.astype(float), masks).hit_rate == 1
    assert localisation(-masks.astype(float), masks).hit_rate == 0


def test_a_flat_heat_map_is_as_good_as_chance():
    masks = np.random.default_rng(0).random((6, 16, 16)) < 0.2
    found = localisation(np.ones((6, 16, 16)), masks)
    assert found.hit_rate == pytest.approx(found.chance)


def test_the_middle_of_the_picture_is_the_centre_prior():
    odd, even = np.zeros((1, 5, 5), dtype=bool), np.zeros((1, 4, 4), dtype=bool)
    odd[0, 2, 2] = even[0, 1, 2] = True
    assert localisation(np.eye(5)[None], odd).centre == 1
    assert localisation(np.eye(4)[None], even).centre == 0.25


def test_a_cell_stands_for_its_part_of_the_picture():
    heat, mask = np.zeros((1, 14, 14)), np.zeros((1, 224, 224), dtype=bool)
    heat[0, 3, 13] = 1
    mask[0, 48:64, 208:224] = True
    assert localisation(heat, mask).hit_rate == 1
    assert localisation(heat, ~mask).hit_rate == 0


def test_a_disc_holds_the_pixels_within_its_radius():
    (disc, none) = discs([3.0, np.nan], [2.0, 2.0], [1.0, 1.0], (5, 6))
    assert {tuple(place) for place in np.argwhere(disc)} == {(2, 3), (1, 3), (3, 3), (2, 2), (2, 4)}
    assert not none.any()


def naive_ndcg(queries, gallery, kinds, videos, k):
    scores = []
    for i, query in enumerate(queries):
        others = [j for j in range(len(gallery)) if videos[j] != videos[i]]
        nearest = sorted(others, key=lambda j: -query @ gallery[j] / np.linalg.norm(query) / np.linalg.norm(gallery[j]))
        possible = sum(kinds[j] == kinds[i] for j in others)
        if possible:
            gain = sum((kinds[j] == kinds[i]) / log2(rank + 2) for rank, j in enumerate(nearest[:k]))
            scores.append(gain / sum(1 / log2(rank + 2) for rank in range(min(k, possible))))
    return np.mean(scores)


KINDS = np.array(["saw", "drill", "vessel"])[np.arange(24) % 3]
VIDEOS = np.arange(24) // 2


def test_retrieval_matches_a_naive_loop_in_all_directions():
    draw = np.random.default_rng(2)
    image, audio = draw.normal(size=(2, 24, 4))
    found = cross_modal_ndcg(image, audio, KINDS, VIDEOS, k=5)
    for query, gallery, name in ((image, image, "image-image"), (image, audio, "image-audio")):
        assert found[name] == pytest.approx(naive_ndcg(query, gallery, KINDS, VIDEOS, 5))
    for query, gallery, name in ((audio, image, "audio-image"), (audio, audio, "audio-audio")):
        assert found[name] == pytest.approx(naive_ndcg(query, gallery, KINDS, VIDEOS, 5))


def test_embeddings_of_the_kind_alone_find_all_that_is_alike():
    z = np.eye(3)[np.arange(24) % 3]
    found = cross_modal_ndcg(z, z, KINDS, VIDEOS, k=7)
    assert all(found[name] == pytest.approx(1) for name in found if name != "chance")
    assert 0 < found["chance"] < 0.6


def test_chance_is_what_random_orders_have_on_average():
    draw = np.random.default_rng(3)
    kinds = np.array([0] * 14 + [1] * 10)
    tried = [cross_modal_ndcg(*draw.normal(size=(2, 24, 3)), kinds, VIDEOS, k=6) for _ in range(60)]
    across = np.mean([one["image-audio"] for one in tried])
    assert across == pytest.approx(tried[0]["chance"], abs=0.02)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"as many scores \(N,\), at least 1; got \(3,\), \(2,\)"):
        correspondence([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="hold NaN"):
        correspondence([np.nan], [1])
    with pytest.raises(InputError, match=r"got \(2, 3, 3\) and \(1, 6, 6\)"):
        localisation(np.zeros((2, 3, 3)), np.ones((1, 6, 6)))
    with pytest.raises(InputError, match="1 of 2 heat maps hold NaN"):
        localisation(np.array([np.full((3, 3), np.nan), np.zeros((3, 3))]), np.ones((2, 6, 6)))
    with pytest.raises(InputError, match="In none of the 2 frames"):
        localisation(np.zeros((2, 3, 3)), np.zeros((2, 6, 6)))
    with pytest.raises(InputError, match="k=30 neighbours were asked for"):
        cross_modal_ndcg(np.ones((4, 2)), np.ones((4, 2)), [0, 0, 1, 1], [0, 1, 2, 3])
