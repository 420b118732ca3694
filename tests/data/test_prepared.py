"""The read side of a prepared dataset."""

import json
import pickle

import numpy as np
import pytest

from medssl.data import store
from medssl.data.prepare import prepare
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError


@pytest.fixture
def data(cohort, tmp_path, protocol) -> PreparedDataset:
    return prepare(cohort, tmp_path / "out", protocol, jobs=1).dataset()


def test_describes_itself(data, protocol):
    assert len(data) == 4
    assert data.subjects == ("s0", "s1", "s2", "s3")
    assert (data.spatial_dims, data.channels) == (3, 1)
    assert data.label_set == protocol.target
    assert data.shape(0) == data.image(0).shape[1:] == data.label(0).shape
    assert data.image(0).dtype == np.float32
    assert data.label(0).dtype == np.uint8
    assert data.class_voxels(0).sum() == np.prod(data.shape(0))


def test_a_crop_is_cut_from_the_whole(data):
    crop = (slice(2, 9), slice(0, 5), slice(3, 8))
    assert np.array_equal(data.image(1, crop), data.image(1)[:, 2:9, 0:5, 3:8])
    assert np.array_equal(data.label(1, crop), data.label(1)[2:9, 0:5, 3:8])


def test_a_crop_asks_the_store_for_no_more(data, monkeypatch):
    asked = []
    read = store.read_array
    monkeypatch.setattr(store, "read_array", lambda path, crop=(): asked.append(crop) or read(path, crop))
    crop = (slice(2, 9), slice(0, 5), slice(3, 8))
    data.image(1, crop)
    data.label(1, crop)
    assert asked == [(slice(None), *crop), crop]


@pytest.mark.parametrize("crop", [(slice(0, 99),) * 3, (slice(-3, 2),) * 3, (slice(0, 2),), (slice(0, 4, 2),) * 3])
def test_a_crop_outside_the_scan_is_an_error(data, crop):
    with pytest.raises((IndexError, ValueError)):
        data.image(0, crop)


def test_positions_belong_to_their_class(data):
    for class_index in (0, 1, 2):
        positions = data.class_positions(2, class_index)
        assert (data.label(2)[tuple(positions.T)] == class_index).all()
    assert data.class_positions(2, 3).shape == (0, 3)


def test_a_selection_is_a_view_of_those_subjects(data):
    view = data.select(["s3", "s1"])
    assert view.subjects == ("s1", "s3")
    assert np.array_equal(view.image(1), data.image(3))
    assert view.fingerprint != data.fingerprint
    assert view.fingerprint == data.select(["s1", "s3"]).fingerprint
    with pytest.raises(InputError, match="has no scan of nobody; its 4 subjects are s0, s1, s2, s3"):
        data.select(["nobody", "s1"])


def test_goes_to_a_worker_by_pickle(data):
    data.image(0)
    there = pickle.loads(pickle.dumps(data))
    assert np.array_equal(there.image(2), data.image(2))
    assert there.fingerprint == data.fingerprint


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a prepared dataset.*medssl prepare SOURCE"):
        PreparedDataset(tmp_path)


def test_a_dataset_of_another_format_is_refused(data):
    description = json.loads((data.root / "prepared.json").read_text())
    (data.root / "prepared.json").write_text(json.dumps({**description, "format": 999}))
    with pytest.raises(InputError, match="was prepared in format 999"):
        PreparedDataset(data.root)
