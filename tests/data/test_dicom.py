"""DICOM series become volumes in the right place, without telling whose they are."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medssl.data import dicom
from medssl.data.catalog import catalog
from medssl.data.prepare import prepare
from medssl.data.resample import reorient
from medssl.data.volumes import read_volume
from medssl.errors import InputError

PATIENT = {"PatientID": "MRN-4711", "PatientName": "Mustermann^Erika", "PatientBirthDate": "19640812"}
VOXELS = np.random.default_rng(4).integers(0, 2000, (8, 6, 5)).astype(np.int16)  # (column, row, slice)


def write_series(folder: Path, positions, uid="1.2.3", turned=None, **fields) -> Path:
    """One file per position along z, in an order that is not the order in space."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, position in enumerate(positions):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        file.SeriesInstanceUID, file.StudyInstanceUID, file.Modality = uid, "1.2", "CT"
        file.Columns, file.Rows = VOXELS.shape[:2]
        file.PixelSpacing, file.ImageOrientationPatient = [2.0, 0.5], list(turned or (1, 0, 0, 0, 1, 0))
        file.ImagePositionPatient = list(position)
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.PixelData = np.ascontiguousarray(VOXELS[:, :, i % 5].T).tobytes()
        for name, value in {**PATIENT, **fields}.items():
            setattr(file, name, value)
        file.save_as(folder / f"{(i * 7) % 10}-{meta.MediaStorageSOPInstanceUID}.dcm", enforce_file_format=True)
    return folder


def along_z(*heights):
    return [(-10.0, -20.0, float(z)) for z in heights]


def test_voxels_and_their_place_are_those_of_the_files(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct", along_z(30, 33, 36, 39, 42)))
    assert np.array_equal(volume.data, VOXELS.astype(np.float32) - 1024)
    assert volume.spacing_mm == (0.5, 2.0, 3.0)
    assert np.allclose(volume.affine @ [0, 0, 0, 1], [10, 20, 30, 1])  # left and back are negative in RAS
    assert np.allclose(volume.affine @ [2, 1, 1, 1], [9, 18, 33, 1])


def test_slices_are_ordered_along_their_normal(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct", along_z(42, 39, 36, 33, 30)))
    assert np.array_equal(volume.data, VOXELS[:, :, ::-1].astype(np.float32) - 1024)


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        ((0, 3, 6, 12, 15), r"ct: its 5 slices are 3\.00 to 6\.00 mm apart \(median 3\.00; 1 uneven, 0 in a place"),
        ((0, 3, 3, 6, 9), r"ct: its 5 slices are 0\.00 to 3\.00 mm apart \(median 3\.00; 1 uneven, 1 in a place"),
        ((0, 1, 5, 6, 12), r"ct: its 5 slices are 1\.00 to 6\.00 mm apart"),
    ],
)
def test_gaps_doubles_and_uneven_slices_are_refused_with_the_numbers(tmp_path, heights, message):
    with pytest.raises(InputError, match=message):
        read_volume(write_series(tmp_path / "ct", along_z(*heights)))


def test_rounded_positions_are_not_uneven(tmp_path):
    assert read_volume(write_series(tmp_path / "ct", along_z(0, 3.01, 5.99, 9, 12))).spacing_mm[2] == 3


def test_a_tilted_gantry_is_kept_as_a_shear(tmp_path):
    positions = [(0.0, -0.5 * i, 3.0 * i) for i in range(5)]
    volume = read_volume(write_series(tmp_path / "ct", positions))
    assert np.allclose(volume.affine[:3, 2], [0, 0.5, 3.0])


def test_a_localiser_is_refused(tmp_path):
    folder = write_series(tmp_path / "ct", along_z(0, 3))
    write_series(folder, [(0.0, 0, 9)], turned=(0, 1, 0, 0, 0, -1))
    with pytest.raises(InputError, match=r"ct: its slices do not share one orientation"):
        read_volume(folder)


def test_several_series_in_a_folder_are_scans_of_their_own(tmp_path):
    folder = write_series(tmp_path / "study" / "all", along_z(0, 3, 6, 9, 12))
    write_series(folder, along_z(0, 1, 2, 3), uid="9.8.7")
    scans = catalog(tmp_path / "study")
    assert sorted(read_volume(s.image, s.series).data.shape[2] for s in scans) == [4, 5]
    assert len({s.name for s in scans}) == 2
    with pytest.raises(InputError, match=r"all: one DICOM image series is expected in the folder, it holds .*, "):
        read_volume(folder)


def test_one_slice_is_2d(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct", along_z(3)))
    assert volume.data.shape == (8, 6)
    assert volume.spacing_mm == (0.5, 2.0)


def test_a_radiograph_without_a_position_is_2d(tmp_path):
    folder = write_series(tmp_path / "xray", along_z(3))
    path = next(folder.iterdir())
    file = pydicom.dcmread(path)
    del file.ImagePositionPatient, file.ImageOrientationPatient
    file.save_as(path)
    assert read_volume(folder).spacing_mm == (0.5, 2.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"NumberOfFrames": 30}, "a file holds 30 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "its pixels are colours"),
    ],
)
def test_cines_and_colours_are_refused(tmp_path, fields, message):
    with pytest.raises(InputError, match=f"us: {message}"):
        read_volume(write_series(tmp_path / "us", along_z(0, 1), **fields))


def test_slices_of_different_size_or_spacing_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", along_z(0, 3))
    write_series(folder, along_z(6, 9, 12), PixelSpacing=[1.0, 1.0])
    with pytest.raises(InputError, match="ct: its slices differ in pixel spacing"):
        read_volume(folder)


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="one DICOM image series is expected in the folder, it holds none"):
        read_volume(tmp_path)


def test_pixels_that_cannot_be_decoded_are_refused_without_naming_files(tmp_path):
    folder = write_series(tmp_path / "ct", along_z(0, 3, 6))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-40])
        path.rename(path.with_name(f"mustermann_{path.name}"))
    with pytest.raises(InputError) as refusal:
        read_volume(folder)
    assert "ct: its pixels cannot be decoded" in str(refusal.value)
    assert "mustermann" not in str(refusal.value)


@pytest.mark.parametrize("kept", [0, 60, 150, 200, 400, 600])
def test_a_slice_that_is_cut_short_is_never_left_out_in_silence(tmp_path, kept):
    folder = write_series(tmp_path / "d" / "head", along_z(0, 1, 2, 3))
    last = max(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    last.write_bytes(last.read_bytes()[:kept])
    (scan,) = catalog(tmp_path / "d")
    with pytest.raises(InputError, match=r"head: 1 of its DICOM images are damaged or cut short"):
        read_volume(scan.image, scan.series)


def test_what_is_no_image_may_lie_beside_one(tmp_path):
    folder = write_series(tmp_path / "d", along_z(0, 1))
    (folder / "notes.txt").write_text("x")
    report = pydicom.dcmread(next(path for path in folder.iterdir() if path.suffix == ".dcm"))
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    del report.Rows, report.Columns, report.PixelData
    report.save_as(folder / "report.dcm")
    assert read_volume(folder).data.shape == (8, 6, 2)


def test_damaged_headers_stop_no_other_scan(tmp_path, write_image):
    """Whatever byte is wrong: a number that is none, an element of no known kind."""
    good = write_series(tmp_path / "d" / "good", along_z(0, 1, 2), PatientID="MRN-1")
    whole = next(good.iterdir()).read_bytes()
    bad = write_series(tmp_path / "d" / "bad", along_z(0, 1, 2), uid="9.9")
    file = next(bad.iterdir())
    for what in (b"UI", b"DS", b"US", b"-20.0"):
        place = whole.index(what, 300)
        file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        report = prepare(tmp_path / "d", tmp_path / "out", jobs=1)
        assert [scan.endswith("_good") for scan in (*report.made, *report.kept)].count(True) == 1


@pytest.mark.parametrize("name", ["1964-08-12", "scans_of_2019_03_04", "MRN-17", "DrHouse"])
def test_dates_other_numbers_and_physicians_are_not_told_either(tmp_path, name):
    told = {"StudyDate": "20190304", "OtherPatientIDs": ["MRN-17", "MRN-18"], "ReferringPhysicianName": "House^Gregory"}
    write_series(tmp_path / "d" / name / "head", along_z(0, 1, 2), **told)
    (scan,) = catalog(tmp_path / "d")
    assert scan.name == f"{scan.subject}_head"


def test_a_subject_is_a_hash_of_the_patients_number(tmp_path):
    write_series(tmp_path / "d" / "a", along_z(0, 1, 2), uid="1.1")
    write_series(tmp_path / "d" / "b", along_z(0, 1, 2), uid="1.2")
    write_series(tmp_path / "d" / "c", along_z(0, 1, 2), uid="1.3", PatientID="MRN-4712")
    subjects = [scan.subject for scan in catalog(tmp_path / "d")]
    assert len(set(subjects)) == 2
    assert all(len(subject) == 10 and int(subject, 16) >= 0 for subject in subjects)


def test_without_a_number_studies_are_told_apart(tmp_path):
    write_series(tmp_path / "d" / "a", along_z(0, 1), uid="1.1", PatientID="", StudyInstanceUID="5.1")
    write_series(tmp_path / "d" / "b", along_z(0, 1), uid="1.2", PatientID="", StudyInstanceUID="5.2")
    assert len({series.subject for series in dicom.find_series(tmp_path / "d")}) == 2


def test_nothing_of_the_patient_is_in_what_is_written_or_told(tmp_path):
    """Even where folders are named after patients."""
    source = tmp_path / "archive"
    write_series(source / "Mustermann_Erika" / "head_19640812", along_z(0, 1, 2, 3, 4), uid="1.1")
    write_series(source / "MRN-4711" / "neck", along_z(0, 1, 2, 3, 40), uid="1.2")
    report = prepare(source, tmp_path / "out", jobs=1)
    assert len(report.made) == len(report.refused) == 1
    assert report.refused[0].scan.endswith("_neck")
    told = report.table() + "".join(map(str, (tmp_path / "out").rglob("*")))
    for path in (tmp_path / "out").rglob("*"):
        told += path.read_bytes().decode("latin-1") if path.is_file() else ""
    for secret in ("MRN", "4711", "ustermann", "Erika", "1964", "0812"):
        assert secret.lower() not in told.lower().replace(str(tmp_path).lower(), "")


@pytest.mark.real_data
def test_every_compression_of_a_real_series_holds_the_same_voxels(real_data):
    """Lossless JPEG, JPEG 2000, JPEG-LS and run lengths of one series; pydicom decodes the last by itself."""
    generic = real_data / "dicom" / "dicom2nifti" / "generic"
    series = dicom.one_series(generic / "compressed_rle" / "001")
    slices = sorted((pydicom.dcmread(path) for path in series.files), key=lambda file: file.ImagePositionPatient[0])
    expected = np.stack([file.pixel_array.T for file in slices], axis=-1)
    for kind in ("compressed", "compressed_j2k", "compressed_jpeg", "compressed_jpegls", "compressed_rle"):
        volume = read_volume(generic / kind / "001")
        flipped = volume.affine[0, 2] > 0  # to the right, where x of DICOM falls
        assert np.array_equal(volume.data, expected[..., ::-1] if flipped else expected), kind


@pytest.mark.real_data
def test_an_oblique_series_lies_where_another_converter_put_it(real_data):
    folder = real_data / "dicom" / "dicom2nifti" / "generic" / "anatomical"
    ours, theirs = (
        read_volume(folder / "002_non_isotropic"),
        read_volume(folder / "002_non_isotropic_ground_truth.nii.gz"),
    )
    ours, theirs = reorient(ours), reorient(theirs)
    assert np.allclose(ours.affine, theirs.affine, atol=1e-3)
    assert np.allclose(ours.data, theirs.data)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("kits_gaps/tests", r"11 slices are 0\.00 to 115\.00 mm apart"),
        ("ge_gantry_tilt", r"28 slices are 1\.08 to 7\.00 mm apart .*tilted by 18\.5 degrees"),
        ("dicom2nifti/generic/rgb/001", "its pixels are colours"),
    ],
)
def test_real_series_that_are_no_volume_are_refused_with_the_numbers(real_data, folder, message):
    with pytest.raises(InputError, match=message):
        read_volume(real_data / "dicom" / folder)
