"""What a file must hold to be a scan, and what is said when it does not."""

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medssl.data.volumes import Volume, read_labels, read_volume, source_files, write_labels
from medssl.errors import InputError

RNG = np.random.default_rng(0)
DATA = RNG.integers(1, 1000, (7, 6, 5)).astype(np.int16)
AFFINE = np.array([[-1.0, 0, 0, 30], [0, 0, 2.0, -12], [0, -1.5, 0, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mgh"])
def test_reads_what_nibabel_wrote(tmp_path, write_image, suffix):
    volume = read_volume(write_image(tmp_path / f"a{suffix}", DATA, AFFINE))
    assert np.array_equal(volume.data, DATA)
    assert np.allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.spacing_mm == pytest.approx((1, 1.5, 2))


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_itk_formats_land_in_the_same_place_as_nifti(tmp_path, write_image, suffix):
    nifti = write_image(tmp_path / "a.nii.gz", DATA, AFFINE)
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}")
    assert np.array_equal(volume.data, DATA)
    assert np.allclose(volume.affine, AFFINE, atol=1e-5)


def test_a_header_file_counts_with_its_data_file(tmp_path):
    image = sitk.GetImageFromArray(DATA)
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))
    assert source_files(tmp_path / "a.mhd") == (tmp_path / "a.mhd", tmp_path / "a.raw")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(InputError, match=r"a\.mhd: its data file 'a\.raw' \(ElementDataFile\) is not there"):
        source_files(tmp_path / "a.mhd")


def test_trailing_axes_of_one_are_dropped(tmp_path, write_image):
    assert read_volume(write_image(tmp_path / "a.nii", DATA[..., None, None])).data.shape == (7, 6, 5)
    flat = read_volume(write_image(tmp_path / "b.nii", DATA[..., :1], AFFINE))
    assert flat.data.shape == (7, 6)
    assert flat.spacing_mm == pytest.approx((1, 1.5))


def test_a_2d_affine_without_a_third_axis_is_completed(tmp_path, write_image):
    flat = read_volume(write_image(tmp_path / "b.nii", DATA[..., :1], np.diag([2.0, 3.0, 0.0, 1.0])))
    assert np.allclose(flat.affine, np.diag([2.0, 3.0, 1.0, 1.0]))


def test_a_picture_is_2d_grey_with_columns_first(tmp_path):
    grey = RNG.integers(0, 255, (4, 9)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(RNG.integers(0, 255, (4, 9, 3)).astype(np.uint8)).save(tmp_path / "colour.jpg")
    assert np.array_equal(read_volume(tmp_path / "a.png").data, grey.T)
    assert read_volume(tmp_path / "colour.jpg").data.shape == (9, 4)


def test_sixteen_bits_of_a_picture_are_kept(tmp_path):
    grey = RNG.integers(0, 65535, (4, 9)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_volume(tmp_path / "a.png").data, grey.T)


def test_a_palette_picture_of_labels_keeps_its_indices(tmp_path):
    indices = Image.fromarray(np.array([[0, 1, 7]], dtype=np.uint8))
    indices.putpalette([10, 20, 30] * 8)
    indices.save(tmp_path / "labels.png")
    assert read_labels(tmp_path / "labels.png").data.ravel().tolist() == [0, 1, 7]


def test_labels_as_jpeg_or_in_colour_are_refused(tmp_path):
    colour = Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8))
    colour.save(tmp_path / "a.jpg")
    colour.save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.jpg: JPEG blurs label ids"):
        read_labels(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.png: the label map is in colour"):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize("keep", [0.05, 0.6, 0.98])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz"])
def test_a_truncated_file_is_refused_by_name(tmp_path, write_image, suffix, keep):
    path = write_image(tmp_path / f"cut{suffix}", RNG.integers(0, 30000, (20, 20, 20)).astype(np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match=rf"cut{suffix}: is truncated or damaged"):
        read_volume(path)


def test_a_truncated_uncompressed_file_is_refused_by_name(tmp_path, write_image):
    path = write_image(tmp_path / "cut.nii", DATA)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut\.nii: is truncated.*claims 420 bytes of voxels, the file has 752"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_truncated_itk_file_is_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(RNG.integers(0, 30000, (20, 20, 20)).astype(np.int16)), str(path))
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(InputError, match=rf"cut{suffix}: cannot be read"):
        read_volume(path)


def test_a_truncated_picture_is_refused_by_name(tmp_path):
    Image.fromarray(RNG.integers(0, 255, (64, 64)).astype(np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cut\.png: cannot be read as a picture"):
        read_volume(tmp_path / "cut.png")


def test_text_named_as_an_image_is_refused(tmp_path):
    (tmp_path / "page.nii.gz").write_text("<html>Please log in</html>")
    with pytest.raises(InputError, match=r"page\.nii\.gz: is named as a compressed image.*<html>"):
        read_volume(tmp_path / "page.nii.gz")
    with gzip.open(tmp_path / "zipped.nii.gz", "wt") as stream:
        stream.write("not an image " * 100)
    with pytest.raises(InputError, match=r"zipped\.nii\.gz: cannot be read as \.nii\.gz"):
        read_volume(tmp_path / "zipped.nii.gz")
    (tmp_path / "page.mha").write_text("not an image")
    with pytest.raises(InputError, match=r"page\.mha: cannot be read as \.mha"):
        read_volume(tmp_path / "page.mha")


@pytest.mark.parametrize(
    ("suffix", "place", "value"),
    [
        (".nii", 42, b"\xff\xff"),  # a negative size
        (".nii.gz", 42, b"\xff\xff"),
        (".nii", 108, b"\x00\x00\xc0\x7f"),  # the voxels begin at NaN
        (".mgh", 4, b"\x00\x00\x00\x00"),  # no voxels along x
        (".mgh", 7, b"\xff"),  # more voxels than there are bytes
        (".mgh", 20, b"\x00\x00\x00\xff"),  # no known type
        (".png", 11, b"\x00"),
    ],
)
def test_a_header_that_cannot_be_is_refused_by_name(tmp_path, write_image, suffix, place, value):
    path = tmp_path / f"odd{suffix}"
    if suffix == ".png":
        Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(path)
    else:
        write_image(path, np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    content = path.read_bytes()
    content = bytearray(gzip.decompress(content) if suffix == ".nii.gz" else content)
    content[place : place + len(value)] = value
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    with pytest.raises(InputError, match=r"odd\.(nii|nii\.gz|mgh|png): (cannot be read|is truncated)"):
        read_volume(path)


def test_an_unknown_ending_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"notes\.txt: its name ends in none of \.nii"):
        read_volume(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"gone\.nii: no such file"):
        read_volume(tmp_path / "gone.nii")


def test_a_series_over_time_is_refused(tmp_path, write_image):
    path = write_image(tmp_path / "bold.nii.gz", np.ones((4, 5, 6, 7), dtype=np.int16))
    with pytest.raises(InputError, match=r"bold\.nii\.gz: has 4 dimensions \(4x5x6x7\), a 2D or 3D image is expected"):
        read_volume(path)


def test_colours_in_nifti_are_refused(tmp_path, write_image):
    colours = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match=r"rgb\.nii: its voxels are .*one real number is expected"):
        read_volume(write_image(tmp_path / "rgb.nii", colours))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mha"])
def test_a_header_that_claims_a_trillion_voxels_is_refused_before_memory_is_taken(tmp_path, write_image, suffix):
    path = tmp_path / f"huge{suffix}"
    if suffix == ".mha":
        fields = "ObjectType = Image\nNDims = 3\nDimSize = 10000 10000 10000\nElementType = MET_SHORT\n"
        path.write_text(fields + "ElementDataFile = LOCAL\n")
    else:
        write_image(path, DATA)
        unpack = gzip.decompress if suffix in (".nii.gz", ".mgz") else bytes
        content = bytearray(unpack(path.read_bytes()))
        if suffix == ".mgz":
            content[4:16] = np.array([10000] * 3, dtype=">i4").tobytes()
        else:
            content[42:48] = np.array([10000] * 3, dtype="<i2").tobytes()
        path.write_bytes(gzip.compress(bytes(content)) if unpack is gzip.decompress else bytes(content))
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"huge{suffix}: .*(1e\+12 voxels|truncated)"):
        read_volume(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_header_that_claims_more_than_its_compressed_file_can_hold_is_refused(tmp_path, write_image):
    path = write_image(tmp_path / "big.nii.gz", DATA)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([1000] * 3, dtype="<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(InputError, match=r"big\.nii\.gz: is truncated or damaged \(its header claims 2000000000 bytes"):
        read_volume(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused_and_counted(tmp_path, write_image, value):
    data = DATA.astype(np.float32)
    data[:2, 0, 0] = value
    with pytest.raises(InputError, match=r"nan\.nii: 2 of 210 voxels are NaN or infinite"):
        read_volume(write_image(tmp_path / "nan.nii", data))


def test_a_scan_of_one_value_is_refused(tmp_path, write_image):
    with pytest.raises(InputError, match=r"dark\.nii\.gz: every voxel is 0"):
        read_volume(write_image(tmp_path / "dark.nii.gz", np.zeros((5, 5, 5), dtype=np.int16)))


def test_a_singular_affine_is_refused(tmp_path, write_image):
    affine = np.diag([1.0, 1.0, 0.0, 1.0])
    with pytest.raises(InputError, match=r"flat\.nii: its affine is singular"):
        read_volume(write_image(tmp_path / "flat.nii", DATA, affine))


@pytest.mark.parametrize("edge_mm", [0.001, 1000.0])
def test_an_absurd_voxel_size_is_refused(tmp_path, write_image, edge_mm):
    with pytest.raises(InputError, match=r"unit\.nii: its voxels measure .* mm; 0\.05 to 20 mm is expected"):
        read_volume(write_image(tmp_path / "unit.nii", DATA, np.diag([1.0, 1.0, edge_mm, 1.0])))


def test_labels_may_be_stored_as_floats_but_not_as_fractions(tmp_path, write_image):
    whole = read_labels(write_image(tmp_path / "whole.nii", DATA.astype(np.float32)))
    assert whole.data.dtype == np.int32
    assert np.array_equal(whole.data, DATA)
    with pytest.raises(InputError, match=r"half\.nii: the label map holds 0\.5"):
        read_labels(write_image(tmp_path / "half.nii", np.full((3, 3, 3), 0.5, dtype=np.float32)))
    with pytest.raises(InputError, match=r"nan\.nii: the label map holds nan"):
        read_labels(write_image(tmp_path / "nan.nii", np.full((3, 3, 3), np.nan, dtype=np.float32)))


def test_written_labels_lie_on_the_scans_own_grid_to_the_bit(tmp_path):
    quaternion = np.array([[0.96, -0.28, 0, 3.3], [0.28, 0.96, 0, -7.7], [0, 0, 1.1, 1.234567], [0, 0, 0, 1]])
    image = nib.Nifti1Image(DATA, None)
    image.set_qform(quaternion, code=1)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "scan.nii.gz")
    scan = read_volume(tmp_path / "scan.nii.gz")
    write_labels(tmp_path / "out.nii.gz", (DATA > 500).astype(np.int64) * 2035, like=scan)
    written = nib.load(tmp_path / "out.nii.gz")
    assert np.array_equal(written.affine, scan.affine)
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (1, 0)
    assert written.get_data_dtype() == np.int16
    assert np.array_equal(np.asanyarray(written.dataobj), (DATA > 500) * 2035)


def test_nothing_that_a_header_tells_of_the_patient_is_written_with_labels(tmp_path, write_image):
    path = write_image(tmp_path / "scan.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    image = nib.load(path)
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[field] = b"Mustermann"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Mustermann^Erika 19640812"))
    nib.save(image, tmp_path / "told.nii")
    assert b"Erika" in (tmp_path / "told.nii").read_bytes()
    volume = read_volume(tmp_path / "told.nii")
    write_labels(tmp_path / "labels.nii.gz", np.ones((2, 3, 4), dtype=np.uint8), volume)
    written = gzip.decompress((tmp_path / "labels.nii.gz").read_bytes())
    assert b"Muster" not in written and b"Erika" not in written
    assert np.array_equal(nib.load(tmp_path / "labels.nii.gz").affine, volume.affine)


def test_labels_of_an_mgz_scan_and_of_a_2d_scan_can_be_written(tmp_path, write_image):
    for name, data in (("a.mgz", DATA), ("b.nii.gz", DATA[..., :1])):
        scan = read_volume(write_image(tmp_path / name, data, AFFINE))
        write_labels(tmp_path / "out.nii.gz", (scan.data > 500).astype(np.uint8), like=scan)
        back = read_labels(tmp_path / "out.nii.gz")
        assert np.array_equal(back.data, scan.data > 500)
        assert np.allclose(back.affine, scan.affine, atol=1e-5)


def test_labels_of_another_shape_are_not_written(tmp_path):
    like = Volume(DATA, np.eye(4))
    with pytest.raises(InputError, match=r"out\.nii\.gz: the labels have 2x2x2 voxels, the scan 7x6x5"):
        write_labels(tmp_path / "out.nii.gz", np.zeros((2, 2, 2), dtype=np.uint8), like)


@pytest.mark.real_data
def test_real_scans_of_every_format_can_be_read(real_data: Path):
    assert read_volume(real_data / "malc" / "1000_T1w.nii.gz").data.shape == (162, 214, 167)
    labels = read_labels(real_data / "freesurfer" / "bert" / "mri" / "aparc+aseg.mgz")
    assert labels.data.dtype == np.int32
    assert labels.data.max() == 2035
