from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk

from medssl.data.volumes import Volume
from medssl.errors import InputError
from medssl.labels.atlas import Atlas, Deformable, carry_image, carry_labels, from_0_to_1, register
from medssl.metrics import dice_per_class

Phantom = Callable[..., Atlas]


def mean_dice(target: Atlas, labels: np.ndarray) -> float:
    return float(np.nanmean(dice_per_class(labels, target.labels, 6)[1:]))


def carried(target: Atlas, atlas: Atlas, deformable: Deformable | None) -> np.ndarray:
    transform = register(target.image, atlas.image, deformable, working_spacing_mm=3.0)
    return carry_labels(atlas, transform, target.image)


@pytest.mark.parametrize(("deformable", "gain"), [("demons", 0.2), ("bspline", 0.1)])
def test_a_deformation_is_found_wherever_the_header_says_the_head_is(
    phantom: Phantom, deformable: Deformable, gain: float
) -> None:
    target, atlas = phantom(bend=1.5, seed=3), phantom(origin_mm=(400.0, -250.0, 90.0))
    affine = mean_dice(target, carried(target, atlas, None))
    assert mean_dice(target, carried(target, atlas, deformable)) > min(0.97, affine + gain)


def test_the_same_input_gives_the_same_labels_to_the_bit(phantom: Phantom) -> None:
    target, atlas = phantom(bend=1.5, seed=3), phantom()
    assert (carried(target, atlas, "demons") == carried(target, atlas, "demons")).all()


def test_another_number_of_threads_changes_nothing_and_is_left_as_it_was(phantom: Phantom) -> None:
    target, atlas = phantom(bend=1.5, seed=3), phantom()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    first = carried(target, atlas, None)
    try:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(4)
        assert (carried(target, atlas, None) == first).all()
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 4
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def test_an_atlas_of_another_orientation_and_resolution_fits_as_well(phantom: Phantom) -> None:
    target, atlas = phantom(), phantom(seed=2)
    flipped = np.ascontiguousarray(atlas.labels.transpose(2, 0, 1)[::-1, :, ::2])
    image = np.ascontiguousarray(atlas.image.data.transpose(2, 0, 1)[::-1, :, ::2])
    turn = np.zeros((4, 4))
    turn[2, 0], turn[0, 1], turn[1, 2], turn[3, 3] = -1, 1, 2, 1
    turn[2, 3] = atlas.labels.shape[2] - 1
    other = Atlas("flipped", Volume(image, atlas.image.affine @ turn), flipped)
    assert mean_dice(target, carried(target, other, None)) > 0.85


def test_a_2d_scan_takes_a_2d_atlas(phantom: Phantom) -> None:
    target, atlas = (
        Atlas("slice", Volume(head.image.data[..., 18], head.image.affine), head.labels[..., 18])
        for head in (phantom(bend=1.0, seed=3), phantom())
    )
    labels = carried(target, atlas, "demons")
    assert labels.shape == target.labels.shape
    assert mean_dice(target, labels) > mean_dice(target, atlas.labels) + 0.1


def test_the_atlas_image_lands_on_the_target_too(phantom: Phantom) -> None:
    target, atlas = phantom(bend=1.5, seed=3), phantom()
    image = carry_image(atlas, register(target.image, atlas.image, "demons", 3.0), target.image)
    ours = from_0_to_1(target.image.data)
    assert image.shape == target.image.data.shape
    assert np.corrcoef(image.ravel(), ours.ravel())[0, 1] > 0.95


def test_outside_the_atlas_is_background(phantom: Phantom) -> None:
    atlas = phantom()
    far = sitk.TranslationTransform(3, [1e4, 0.0, 0.0])
    assert not carry_labels(atlas, far, atlas.image).any()


def test_intensities_run_from_0_to_about_1_whatever_the_scale() -> None:
    data = np.random.default_rng(0).normal(-500, 200, (20, 20, 20))
    scaled = from_0_to_1(data)
    assert scaled.dtype == np.float32
    assert (scaled.min(), np.percentile(scaled, 99)) == (0, pytest.approx(1, abs=0.05))
    assert np.allclose(from_0_to_1(3 * data + 7), scaled, atol=1e-5)


def test_an_image_of_hardly_more_than_one_value_stays_finite() -> None:
    data = np.full((10, 10, 10), 5.0)
    data[0, 0, :5] = 3
    assert np.isfinite(from_0_to_1(data)).all()


def test_a_wrong_registration_lists_the_right_ones(phantom: Phantom) -> None:
    with pytest.raises(InputError, match="'syn'; choose demons, bspline or none"):
        register(phantom().image, phantom().image, "syn")


def test_a_2d_atlas_for_a_3d_scan_is_refused(phantom: Phantom) -> None:
    flat = Volume(np.eye(8), np.eye(4))
    with pytest.raises(InputError, match="2D atlas cannot be registered to a 3D scan"):
        register(phantom().image, flat)
