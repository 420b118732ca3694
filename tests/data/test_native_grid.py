"""Labels return to the grid that a scan came on."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medssl.data.native_grid import coincide, copied, voted
from medssl.data.resample import reorient
from medssl.data.volumes import Volume

SHAPE = (9, 11, 13)


def random_labels(shape: tuple[int, ...] = SHAPE, classes: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, classes, shape, dtype=np.uint8)


def one_hot(labels: NDArray[np.uint8], classes: int = 4) -> NDArray[np.float16]:
    return np.stack([labels == index for index in range(classes)]).astype(np.float16)


def oblique(spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (20, -15, 10), degrees=True).as_matrix() * spacing_mm
    affine[:3, 3] = (-31.7, 12.3, 5.1)
    return affine


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LIA", "PSR", "AIL"])
def test_turned_and_flipped_voxels_come_back_to_their_places(codes: str) -> None:
    affine = oblique() @ nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), SHAPE)
    native = Volume(random_labels(), affine)
    upright = reorient(native)
    assert coincide(upright.affine, native)
    assert np.array_equal(copied(upright.data, upright.affine, native), native.data)


def test_a_crop_comes_back_with_background_around_it() -> None:
    native = Volume(random_labels(), oblique())
    affine = native.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (2, 3, 4)
    box = np.s_[2:7, 3:9, 4:13]
    back = copied(native.data[box], affine, native)
    assert np.array_equal(back[box], native.data[box])
    back[box] = 0
    assert not back.any()


def test_the_rounding_of_a_header_costs_no_voxel() -> None:
    native = Volume(random_labels(), oblique().astype(np.float32).astype(np.float64))
    moved = native.affine @ np.linalg.inv(np.diag([1, 1, 1 + 1e-6, 1]))
    assert coincide(moved, native)
    assert np.array_equal(copied(native.data, moved, native), native.data)


@pytest.mark.parametrize("scale", [(2, 1, 1), (1, 1, 1.02), (0.5, 0.5, 0.5)])
def test_another_spacing_does_not_coincide(scale: tuple[float, float, float]) -> None:
    native = Volume(random_labels(), oblique())
    assert not coincide(native.affine @ np.diag([*scale, 1.0]), native)


def test_half_a_voxel_or_a_rotation_does_not_coincide() -> None:
    native = Volume(random_labels(), np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    assert not coincide(shifted, native)
    assert not coincide(oblique(), native)


def test_a_vote_between_coinciding_grids_copies() -> None:
    native = Volume(random_labels(), oblique())
    upright = reorient(Volume(native.data, native.affine), "LPS")
    assert np.array_equal(voted(one_hot(upright.data), upright.affine, native), native.data)


def test_a_vote_is_the_linear_interpolation_of_probabilities() -> None:
    probabilities = np.array([[0.9, 0.2], [0.1, 0.8]])[:, :, None, None]  # equal at 4/7 of the way
    native = Volume(np.zeros((8, 1, 1)), np.diag([1 / 7, 1, 1, 1]))
    assert voted(probabilities, np.eye(4), native).ravel().tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_a_vote_matches_a_naive_loop_over_voxels() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet([0.3] * 4, size=(5, 6, 7)).transpose(3, 0, 1, 2)
    affine = oblique((2.0, 2.0, 2.0))
    native = Volume(np.zeros((9, 8, 10)), oblique((1.1, 1.3, 0.9)))
    found = voted(probabilities, affine, native)
    padded = np.pad(probabilities, ((0, 0), (1, 1), (1, 1), (1, 1)), mode="edge")
    to_source = np.linalg.inv(affine) @ native.affine
    for voxel in itertools.product(*(range(n) for n in native.data.shape)):
        place = (to_source @ [*voxel, 1])[:3] + 1
        base = np.floor(place).astype(int)
        inside = (place >= 0).all() and (place <= np.array(padded.shape[1:]) - 1).all()
        expected = np.array([1.0, 0, 0, 0])
        if inside:
            expected = np.zeros(4)
            for corner in itertools.product((0, 1), repeat=3):
                weight = np.prod(np.where(corner, place - base, 1 - (place - base)))
                at = np.minimum(base + corner, np.array(padded.shape[1:]) - 1)
                expected += weight * padded[(slice(None), *at)]
        top = np.sort(expected)[-2:]
        assert found[voxel] == expected.argmax() or top[1] - top[0] < 1e-5


def test_a_structure_at_the_border_keeps_its_border() -> None:
    labels = np.ones((4, 4, 4), dtype=np.uint8)
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    fine = np.eye(4)
    fine[:3, 3] = -0.5  # the same field of view
    assert (voted(one_hot(labels, 2), coarse, Volume(np.zeros((8, 8, 8)), fine)) == 1).all()


def test_nothing_is_invented_beyond_the_probabilities() -> None:
    far = np.eye(4)
    far[:3, 3] = -10
    found = voted(one_hot(np.ones((3, 3, 3), dtype=np.uint8), 2), np.eye(4), Volume(np.zeros((30, 30, 30)), far))
    assert not found[:9].any() and not found[14:].any()
    assert (found[10:13, 10:13, 10:13] == 1).all()


def test_a_coarser_grid_takes_the_class_that_fills_most_of_its_voxel() -> None:
    labels = np.zeros((24, 6, 6), dtype=np.uint8)
    labels[:8] = 1
    labels[[9, 13, 17]] = 2  # thin sheets, one of every four voxels, right where the coarse voxels are read
    native = Volume(np.zeros((6, 6, 6)), np.diag([4.0, 1, 1, 1]) @ nib.affines.from_matvec(np.eye(3), (0.25, 0, 0)))
    found = voted(one_hot(labels, 3), np.eye(4), native)
    assert (found[:2, 2, 2] == 1).all() and not found[2:, 2, 2].any()


def test_2d_images_come_back() -> None:
    native = Volume(random_labels((9, 11)), np.diag([-1.0, 1, 1, 1]))
    upright = reorient(native)
    assert coincide(upright.affine, native)
    assert np.array_equal(copied(upright.data, upright.affine, native), native.data)
    assert np.array_equal(voted(one_hot(upright.data), upright.affine, native), native.data)
