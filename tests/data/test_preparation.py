"""What a preparation does to an image, in training as in inference."""

import json

import nibabel as nib
import numpy as np
import pytest

from medssl.data.preparation import Preparation, prepare_image
from medssl.data.resample import resample
from medssl.data.volumes import Volume
from medssl.errors import InputError

RNG = np.random.default_rng(2)


def head(shape=(30, 28, 26)) -> np.ndarray:
    data = np.zeros(shape, dtype=np.float32)
    inner = tuple(slice(6, n - 6) for n in shape)
    data[inner] = RNG.uniform(200, 1000, data[inner].shape)
    return data


def test_goes_through_json_unchanged():
    preparation = Preparation(spacing_mm=(1.0, 1.0, 3.0), intensity="ct", window_hu=(-1000, 400), margin=2)
    assert Preparation.from_dict(json.loads(json.dumps(preparation.to_dict()))) == preparation
    assert Preparation.from_dict(Preparation(spacing_mm=None).to_dict()) == Preparation(spacing_mm=None)


def test_an_entry_of_another_version_is_refused():
    with pytest.raises(InputError, match="has sharpen, which this version"):
        Preparation.from_dict({**Preparation().to_dict(), "sharpen": 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spacing_mm": 0.0}, "spacing_mm must be one positive number"),
        ({"spacing_mm": (1.0, -1.0, 1.0)}, "spacing_mm must be one positive number"),
        ({"intensity": "pet"}, "intensity must be mri, ct or rgb, got pet"),
        ({"percentiles": (99.0, 1.0)}, "percentiles must rise"),
        ({"window_hu": (5.0, 5.0)}, "window_hu must rise"),
        ({"margin": -1}, "margin must be 0 or more"),
        ({"orientation": "LPS"}, "orientation must be RAS"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Preparation(**arguments)


def test_the_result_is_the_same_whatever_the_unit_of_intensity():
    data = head()
    one = prepare_image(Volume(data, np.eye(4)), Preparation())
    other = prepare_image(Volume((data * 37.5).astype(np.float64), np.eye(4)), Preparation())
    assert np.allclose(one.data, other.data, atol=1e-5)


def test_the_background_is_0_and_the_foreground_has_mean_1():
    prepared = prepare_image(Volume(head(), np.eye(4)), Preparation(margin=3))
    assert prepared.data.dtype == np.float32
    assert prepared.data.shape == (1, 24, 22, 20)
    assert (prepared.data[0, :3] == 0).all()
    assert prepared.data[prepared.data > 0.45].mean() == pytest.approx(1, abs=0.02)  # a tenth up from the darkest


def test_air_around_a_whole_head_stays_dark_and_is_cropped():
    data = head()
    air = data == 0
    data[air] = np.abs(RNG.normal(0, 8, air.sum()))
    prepared = prepare_image(Volume(data, np.eye(4)), Preparation(margin=1))
    assert prepared.data.shape == (1, 20, 18, 16)
    assert prepared.data[0, 0].max() < 0.1


def test_a_few_bright_voxels_do_not_move_the_rest():
    data = head()
    plain = prepare_image(Volume(data, np.eye(4)), Preparation()).data
    bright = data.copy()
    bright[10, 10, 8:11] = 1e6
    spoiled = prepare_image(Volume(bright, np.eye(4)), Preparation()).data
    assert np.median(np.abs(plain - spoiled)) < 0.02


def test_a_scan_that_was_standardised_already_keeps_its_contrast():
    data = head()
    data[data > 0] = (data[data > 0] - 600) / 230
    prepared = prepare_image(Volume(data, np.eye(4)), Preparation()).data
    assert prepared.min() == 0
    assert prepared[prepared > 0].std() > 0.3


def test_hounsfield_numbers_are_cut_at_the_window():
    data = np.full((12, 12, 12), -1000, dtype=np.int16)
    data[3:9, 3:9, 3:9] = 50
    data[4, 4, 4], data[5, 5, 5] = 3000, -190
    prepared = prepare_image(Volume(data, np.eye(4)), Preparation(intensity="ct", margin=1)).data[0]
    assert prepared.shape == (8, 8, 8)
    assert prepared[0, 0, 0] == 0
    assert prepared[2, 2, 2] == 1
    assert prepared[3, 3, 3] == pytest.approx(0.02)
    assert prepared[1, 1, 1] == pytest.approx(0.5)


def test_a_ct_that_is_not_in_hounsfield_numbers_is_refused():
    with pytest.raises(InputError, match="its lowest value is 0, but Hounsfield numbers"):
        prepare_image(Volume(head(), np.eye(4)), Preparation(intensity="ct"))


def test_a_mask_given_as_an_image_is_refused():
    with pytest.raises(InputError, match="nearly all are 1; an image has contrast"):
        prepare_image(Volume((head() > 0).astype(np.uint8), np.eye(4)), Preparation())


@pytest.mark.parametrize("spacing_mm", [1.0, (2.0, 1.0, 1.5)])
def test_the_grid_has_the_spacing_and_orientation_asked_for(spacing_mm):
    affine = np.array([[0, 0, -2.0, 40], [-1, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 0, 1]])
    prepared = prepare_image(Volume(head(), affine), Preparation(spacing_mm=spacing_mm))
    assert nib.aff2axcodes(prepared.affine) == ("R", "A", "S")
    assert np.allclose(np.linalg.norm(prepared.affine[:3, :3], axis=0), spacing_mm)


def test_the_affine_leads_from_the_prepared_grid_back_to_the_scan():
    affine = np.array([[0, 0, -1.0, 40], [-1, 0, 0, 30], [0, 1, 0, -20], [0, 0, 0, 1]])
    data = head()
    prepared = prepare_image(Volume(data, affine), Preparation())
    back = resample(prepared.data[0], prepared.affine, affine, data.shape, order=0)
    assert np.array_equal(back > 0, data > 0)
    assert np.corrcoef(back[data > 0], data[data > 0])[0, 1] > 0.999


def test_a_2d_image_gives_one_channel_of_two_axes():
    prepared = prepare_image(Volume(head()[..., 13], np.eye(4)), Preparation(margin=0))
    assert prepared.data.shape == (1, 18, 16)
    with pytest.raises(InputError, match="is 2D, the preparation's spacing has 3 numbers"):
        prepare_image(Volume(head()[..., 13], np.eye(4)), Preparation(spacing_mm=(1.0, 1.0, 1.0)))


def test_a_tilted_gantry_is_made_rectangular():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[1, 2] = 0.3
    prepared = prepare_image(Volume(head(), affine), Preparation())
    columns = prepared.affine[:3, :3]
    assert np.allclose(columns.T @ columns, np.eye(3), atol=1e-6)
