"""Distances between surfaces by hand and against loops, exact to the triangle."""

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.evaluation.surface import (
    SURFACE_SCORES,
    mesh_distances,
    score_surface,
    surface_distances,
    surface_points,
    triangle_distances,
)
from medssl.evaluation.trajectory import Similarity, umeyama
from medssl.reconstruction.mesh import Mesh

SQUARE = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]], np.float32)


def mesh(vertices, faces):
    vertices = np.asarray(vertices, np.float32)
    return Mesh(vertices, np.asarray(faces, np.int32), 0 * vertices, np.zeros(vertices.shape, np.uint8), "mm")


def square(z=0.0):
    return mesh(SQUARE + np.float32([0, 0, z]), [[0, 1, 2], [0, 2, 3]])


def score(estimate, truth, tolerance_mm=1.0, **keywords):
    return score_surface(estimate, truth, tolerance_mm, scan="x", samples=2000, **keywords).iloc[0]


def test_the_scores_are_those_computed_by_hand():
    row = score(np.array([[0.0, 0, 0], [0, 0, 3]]), np.array([[0.0, 0, 0], [1, 0, 0], [0, 5, 0]]))
    assert row["accuracy_mm"] == pytest.approx((0 + 3) / 2)
    assert row["completeness_mm"] == pytest.approx((0 + 1 + 5) / 3)
    assert row["chamfer_mm"] == pytest.approx((1.5 + 2) / 2)
    assert (row["precision"], row["recall"]) == pytest.approx((1 / 2, 2 / 3))
    assert row["f_score"] == pytest.approx(2 / (2 + 3 / 2))
    assert (row["tolerance_mm"], row["n"], row["missing"], row["missed"]) == (1, 3, 0, False)


def test_distances_agree_with_a_double_loop():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40, 3))
    expected = [min(np.linalg.norm(p - q) for q in b) for p in a]
    np.testing.assert_allclose(surface_distances(a, b), expected)


def test_the_nearest_of_a_triangle_is_a_corner_an_edge_or_its_inside():
    triangle = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    points = np.array([[1.0, 1, 2], [2, -3, 0], [-3, -4, 0], [4, 4, 0], [1, 1, 0], [6, 0, 0]])
    expected = [2, 3, 5, np.sqrt(8), 0, 2]
    np.testing.assert_allclose(triangle_distances(points, np.tile(triangle, (6, 1, 1))), expected, atol=1e-12)
    np.testing.assert_allclose(triangle_distances(points, np.tile(triangle[::-1], (6, 1, 1))), expected, atol=1e-12)


def test_triangles_without_area_are_the_lines_and_points_that_they_are():
    line, point = np.array([[0.0, 0, 0], [4, 0, 0], [2, 0, 0]]), np.ones((3, 3))
    assert triangle_distances(np.array([[3.0, 2, 0], [1, 1, 3]]), np.stack([line, point])).tolist() == [2, 2]


def test_mesh_distances_agree_with_fine_samples_of_each_triangle():
    rng = np.random.default_rng(1)
    vertices, faces = rng.normal(size=(20, 3)), rng.integers(0, 20, (15, 3))
    points = rng.normal(0, 2, (25, 3))
    u, v = (part.ravel() for part in np.meshgrid(np.linspace(0, 1, 120), np.linspace(0, 1, 120)))
    inside = u + v <= 1
    weights = np.stack([1 - u - v, u, v], axis=1)[inside]
    samples = (weights[None] @ vertices[faces]).reshape(-1, 3)
    expected = [np.linalg.norm(samples - p, axis=1).min() for p in points]
    found = mesh_distances(points, vertices, faces)
    assert (found <= np.array(expected) + 1e-12).all()
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_one_batch_of_points_and_many_give_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    vertices = rng.normal(size=(30, 3)) * rng.choice([0.01, 1, 20], (30, 1))  # triangles of very different sizes
    faces, points = rng.integers(0, 30, (50, 3)), rng.normal(0, 3, (40, 3))
    whole = mesh_distances(points, vertices, faces)
    monkeypatch.setattr("medssl.evaluation.surface._PAIRS_AT_ONCE", 30)
    assert mesh_distances(points, vertices, faces).tolist() == whole.tolist()
    every = [triangle_distances(np.tile(p, (50, 1)), vertices[faces]).min() for p in points]
    np.testing.assert_allclose(whole, every)


def test_two_parallel_squares_are_as_far_as_they_are_apart():
    row = score(square(0.5), square(), tolerance_mm=0.51)
    assert (row["accuracy_mm"], row["completeness_mm"]) == pytest.approx((0.5, 0.5))
    assert row["f_score"] == 1
    assert score(square(0.5), square(), tolerance_mm=0.49)["f_score"] == 0


def test_points_are_drawn_evenly_by_area_and_alike_for_a_seed():
    two = mesh([*SQUARE, [10, 0, 0], [11, 0, 0], [10, 1, 0]], [[0, 1, 2], [0, 2, 3], [4, 5, 6]])
    points = surface_points(two, 9000, seed=3)
    assert (points[:, 0] > 5).mean() == pytest.approx(0.5 / 4.5, abs=0.015)
    on_square = points[points[:, 0] < 5]
    np.testing.assert_allclose(on_square.mean(axis=0), [1, 1, 0], atol=0.03)
    np.testing.assert_allclose(on_square[:, :2].var(axis=0), 4 / 12, atol=0.02)
    assert (surface_points(two, 9000, seed=3) == points).all()
    assert (surface_points(two, 9000, seed=4) != points).any()


def test_scores_do_not_see_a_similarity_that_is_aligned_away():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(200, 3))
    estimate = truth + rng.normal(0, 0.05, truth.shape)
    moved = Similarity(0.1, np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]), np.array([3.0, 2, 1])).points(estimate)
    one = score(estimate, truth, 0.1, alignment=umeyama(estimate, truth))
    other = score(moved, truth, 0.1, alignment=umeyama(moved, truth))
    names = list(SURFACE_SCORES)
    assert other[names].tolist() == pytest.approx(one[names].tolist())
    assert other["scale"] == pytest.approx(one["scale"] * 10)
    assert score(mesh(SQUARE / 4, [[0, 1, 2], [0, 2, 3]]), square(), 1e-5, alignment=Similarity(4.0))["f_score"] == 1


def test_points_that_are_not_finite_are_counted_and_an_empty_estimate_is_missed():
    truth = np.zeros((2, 3))
    row = score(np.array([[0.0, 0, 0], [np.nan, 0, 0]]), truth)
    assert (row["missing"], row["accuracy_mm"], row["precision"]) == (1, 0, 1)
    for empty in (np.full((2, 3), np.nan), np.zeros((0, 3)), mesh(SQUARE, np.zeros((0, 3)))):
        row = score(empty, truth)
        assert row["missed"] and np.isnan([row["accuracy_mm"], row["completeness_mm"], row["precision"]]).all()
        assert (row["recall"], row["f_score"]) == (0, 0)
    assert np.isnan(score(truth, np.zeros((0, 3)))[list(SURFACE_SCORES)].astype(float)).all()


def test_a_broken_vertex_takes_its_faces_with_it():
    broken = square()
    broken.vertices[3] = np.nan
    row = score(broken, square(), 1e-3)
    assert (row["missing"], row["precision"]) == (1, 1)
    assert row["recall"] == pytest.approx(0.5, abs=0.05)


def test_what_is_no_surface_is_refused():
    with pytest.raises(InputError, match=r"got an array \(4, 2\)"):
        score(np.zeros((4, 2)), square())
