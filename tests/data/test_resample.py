"""Grids become other grids through their affines alone."""

import nibabel as nib
import numpy as np
import pytest

from medssl.data.resample import corner_distance_mm, grid, reorient, resample
from medssl.data.volumes import Volume

RNG = np.random.default_rng(1)
OBLIQUE = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])


def affine_of(columns, origin=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    return affine


@pytest.mark.parametrize("axes", ["LAS", "LIA", "PSR", "RAS", "ASL"])
def test_reorienting_moves_no_voxel_in_space(axes):
    data = RNG.random((3, 4, 5))
    transform = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
    )
    moved = nib.orientations.apply_orientation(data, transform)
    affine = affine_of(np.diag([1.0, 2, 3]), (9, 8, 7)) @ nib.orientations.inv_ornt_aff(transform, data.shape)
    back = reorient(Volume(moved, affine))
    assert nib.aff2axcodes(back.affine) == ("R", "A", "S")
    assert np.array_equal(back.data, data)
    assert np.allclose(back.affine, affine_of(np.diag([1.0, 2, 3]), (9, 8, 7)))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (np.diag([-1.0, -1, 1]), lambda a: a[::-1, ::-1]),  # axial, from the patient's left and back
        (np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), lambda a: a[::-1, ::-1]),  # sagittal, rows going down
        (np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]]), lambda a: a.T),  # axial, axes swapped
    ],
)
def test_a_slice_stays_in_its_plane(columns, expected):
    data = RNG.random((3, 4))
    turned = reorient(Volume(data, affine_of(columns)))
    assert np.array_equal(turned.data, expected(data))
    assert (turned.affine[:3, :2].sum(axis=0) > 0).all()


def test_a_grid_of_another_spacing_keeps_the_centre_and_the_field_of_view():
    affine = affine_of(OBLIQUE @ np.diag([1.0, 1, 4]), (5, 6, 7))
    shape, to = grid((40, 30, 10), affine, (2.0, 2.0, 2.0))
    assert shape == (20, 15, 20)
    centre = affine @ [19.5, 14.5, 4.5, 1]
    assert np.allclose(to @ [9.5, 7.0, 9.5, 1], centre)
    assert np.allclose(to[:3, :3], OBLIQUE * 2)


def test_a_grid_that_is_right_already_is_kept_to_the_bit():
    affine = affine_of(OBLIQUE * 1.00002, (5.1, 6.2, 7.3))
    shape, to = grid((4, 5, 6), affine, (1.0, 1.0, 1.0))
    assert shape == (4, 5, 6)
    assert to is affine
    assert grid((4, 5, 6), affine, None)[1] is affine


def test_a_sheared_grid_becomes_rectangular_and_covers_it():
    affine = affine_of(np.array([[1.0, 0, 0], [0, 1, 0.3], [0, 0, 1]]))
    shape, to = grid((10, 10, 20), affine, (1.0, 1.0, 1.0))
    columns = to[:3, :3]
    assert np.allclose(columns.T @ columns, np.eye(3), atol=1e-6)
    corners = np.array(np.meshgrid([0, 9], [0, 9], [0, 19], [1.0], indexing="ij")).reshape(4, -1)
    voxels = np.linalg.inv(to) @ affine @ corners
    assert (voxels[:3] > -0.6).all()
    assert (np.array(shape) - 0.4 > voxels[:3].T).all()


def test_linear_resampling_reproduces_a_linear_ramp():
    x, y, z = np.meshgrid(*[np.arange(12.0)] * 3, indexing="ij")
    ramp = (x + 2 * y - z).astype(np.float32)
    to = affine_of(np.eye(3) * 0.5, (2, 2, 2))
    half = resample(ramp, np.eye(4), to, (9, 9, 9), order=1)
    i, j, k = np.meshgrid(*[2 + 0.5 * np.arange(9.0)] * 3, indexing="ij")
    assert np.allclose(half, i + 2 * j - k, atol=1e-4)
    assert half.dtype == np.float32


def test_nearest_resampling_invents_no_label():
    labels = RNG.choice([0, 4, 43], (10, 11, 12)).astype(np.uint8)
    out = resample(labels, np.eye(4), affine_of(OBLIQUE * 0.7, (1, 1, 1)), (9, 9, 9), order=0)
    assert set(np.unique(out)) <= {0, 4, 43}


def test_a_flip_by_affine_is_exact():
    labels = RNG.integers(0, 200, (5, 6, 7)).astype(np.uint8)
    flip = affine_of(np.diag([-1.0, 1, 1]), (4, 0, 0))
    assert np.array_equal(resample(labels, np.eye(4), flip, (5, 6, 7), order=0), labels[::-1])


def test_fine_detail_does_not_alias_when_the_grid_becomes_coarser():
    stripes = np.zeros((40, 4, 4), dtype=np.float32)
    stripes[::2] = 1
    coarse = resample(stripes, np.eye(4), affine_of(np.diag([4.0, 1, 1])), (10, 4, 4), order=1)
    assert np.allclose(coarse[1:-1], 0.5, atol=0.02)


def test_a_2d_image_is_resampled_in_its_plane():
    ramp = np.add.outer(np.arange(8.0), 10 * np.arange(6.0)).astype(np.float32)
    half = resample(ramp, np.eye(4), affine_of(np.diag([0.5, 0.5, 1])), (15, 11), order=1)
    assert np.allclose(half, np.add.outer(0.5 * np.arange(15), 5.0 * np.arange(11)), atol=1e-5)


def test_corners_tell_how_far_apart_two_grids_are():
    assert corner_distance_mm((11, 11, 11), np.eye(4), affine_of(np.eye(3), (3, 4, 0))) == pytest.approx(5)
    assert corner_distance_mm((11, 11, 11), np.eye(4), affine_of(np.diag([1.1, 1, 1]))) == pytest.approx(1)
