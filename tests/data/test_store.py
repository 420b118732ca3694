"""How one prepared scan lies on disk."""

import blosc2
import numpy as np

from medssl.data.store import (
    POSITIONS_PER_CLASS,
    Entry,
    read_array,
    read_meta,
    read_positions,
    write_array,
    write_entry,
)

RNG = np.random.default_rng(3)


def test_a_crop_is_what_numpy_would_cut(tmp_path):
    data = RNG.random((1, 70, 90, 65)).astype(np.float16)
    write_array(tmp_path / "a.b2nd", data)
    crop = (slice(None), slice(3, 68), slice(60, 90), slice(0, 33))
    assert np.array_equal(read_array(tmp_path / "a.b2nd", crop), data[crop])
    assert np.array_equal(read_array(tmp_path / "a.b2nd"), data)


def test_a_crop_is_read_although_the_rest_of_the_volume_is_destroyed(tmp_path):
    """Reading a crop decodes only the chunks that it touches: those that it does not touch may be garbage."""
    data = RNG.integers(1, 60000, (1, 128, 128, 128)).astype(np.uint16)
    path = tmp_path / "a.b2nd"
    write_array(path, data)
    array = blosc2.open(str(path), mode="r")
    assert array.schunk.nchunks == 8
    frame = path.read_bytes()
    spoiled = bytearray(frame)
    last = array.schunk.get_chunk(7)
    start = frame.index(last[:64])
    spoiled[start : start + len(last)] = bytes(len(last))
    path.write_bytes(spoiled)
    crop = (slice(None), slice(4, 60), slice(8, 64), slice(0, 60))
    assert np.array_equal(read_array(path, crop), data[crop])
    broken = False
    try:
        broken = not np.array_equal(read_array(path), data)
    except RuntimeError:
        broken = True
    assert broken  # the whole volume cannot be had any more, so the crop did not need it


def test_positions_are_voxels_of_their_class(tmp_path):
    label = np.zeros((30, 30, 30), dtype=np.uint8)
    label[4:20, 4:20, 4:20] = 1
    label[25, 25, 20:25] = 3
    entry = Entry(np.ones((1, 30, 30, 30), dtype=np.float32), label, 5, {"shape": [30, 30, 30]})
    write_entry(tmp_path / "0123456789abcdef", entry)
    counts = [len(read_positions(tmp_path / "0123456789abcdef", c)) for c in range(5)]
    assert counts == [POSITIONS_PER_CLASS, POSITIONS_PER_CLASS, 0, 5, 0]
    for c in range(5):
        positions = read_positions(tmp_path / "0123456789abcdef", c)
        assert (label[tuple(positions.T)] == c).all()
        assert len(np.unique(positions, axis=0)) == len(positions)


def test_an_entry_exists_once_it_is_whole(tmp_path):
    folder = tmp_path / "0123456789abcdef"
    assert read_meta(folder) is None
    write_entry(folder, Entry(np.ones((1, 4, 4), dtype=np.float32), None, 0, {"shape": [4, 4]}))
    assert read_meta(folder) == {"shape": [4, 4]}
    assert sorted(path.name for path in folder.iterdir()) == ["image.b2nd", "meta.json"]
