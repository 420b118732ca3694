"""Files of flow and of float maps hold what was written, byte for byte as published."""

import struct

import numpy as np
import pytest
from PIL import Image

from medssl.data.flow_files import read_flow, read_pfm, write_flo, write_kitti_flow, write_pfm
from medssl.errors import InputError

FLOW = np.random.default_rng(0).integers(-640, 640, (4, 6, 2)).astype(np.float32) / 64


def with_a_hole():
    flow = FLOW.copy()
    flow[1, 2] = np.nan
    return flow


def test_a_flo_file_is_magic_width_height_and_rows(tmp_path):
    path = tmp_path / "f.flo"
    path.write_bytes(b"PIEH" + struct.pack("<2i4f", 2, 1, 1.0, 2.0, 3.0, 2e9))
    flow = read_flow(path)
    assert flow.shape == (1, 2, 2)
    assert np.array_equal(flow[0, 0], [1, 2]) and np.isnan(flow[0, 1]).all()


@pytest.mark.parametrize(("ending", "write"), [("flo", write_flo), ("png", write_kitti_flow)])
def test_flow_is_read_as_it_was_written(tmp_path, ending, write):
    path = tmp_path / f"f.{ending}"
    write(path, with_a_hole())
    assert np.array_equal(read_flow(path), with_a_hole(), equal_nan=True)


def test_kittis_flow_is_sixty_fourths_of_a_pixel_around_32768(tmp_path):
    path = tmp_path / "f.png"
    write_kitti_flow(path, np.full((2, 3, 2), [1.0, -0.5], dtype=np.float32))
    content = path.read_bytes()
    assert content[24] == 16 and content[25] == 2  # bits, and three colours
    assert np.allclose(read_flow(path), [1.0, -0.5])


def test_flow_too_large_for_kittis_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"under 512 pixels; got 600"):
        write_kitti_flow(tmp_path / "f.png", np.full((2, 2, 2), 600, dtype=np.float32))


def test_an_8_bit_picture_is_no_flow(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "f.png")
    with pytest.raises(InputError, match="three channels of 16 bits"):
        read_flow(tmp_path / "f.png")


@pytest.mark.parametrize("content", [b"PIEH" + struct.pack("<2i", 2, 2), b"nothing of the kind", b""])
def test_a_damaged_flo_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "f.flo"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"f\.flo: is"):
        read_flow(path)


def test_a_flo_header_that_claims_the_impossible_takes_no_memory(tmp_path):
    path = tmp_path / "f.flo"
    path.write_bytes(b"PIEH" + struct.pack("<2i", 2**30, 2**30))
    with pytest.raises(InputError, match="truncated or damaged"):
        read_flow(path)


@pytest.mark.parametrize(("order", "scale"), [("<", "-0.0039"), (">", "1.0")])
def test_a_float_map_is_stored_bottom_up_in_either_order_of_bytes(tmp_path, order, scale):
    path = tmp_path / "d.pfm"
    path.write_bytes(f"Pf\n2 2\n{scale}\n".encode() + struct.pack(f"{order}4f", 3, 4, 1, float("inf")))
    assert np.array_equal(read_pfm(path), [[1, np.inf], [3, 4]])


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3)])
def test_a_float_map_is_read_as_it_was_written(tmp_path, shape):
    values = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    write_pfm(tmp_path / "d.pfm", values)
    assert np.array_equal(read_pfm(tmp_path / "d.pfm"), values)


@pytest.mark.parametrize("content", [b"P6\n2 2\n255\n", b"Pf\n2 two\n1\n", b"Pf\n2 2\n-1\n1234", b"Pf"])
def test_a_damaged_float_map_is_refused_by_name(tmp_path, content):
    path = tmp_path / "d.pfm"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"d\.pfm: is"):
        read_pfm(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_pfm(tmp_path / "none.pfm")
