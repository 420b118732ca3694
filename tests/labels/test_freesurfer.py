from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import InputError
from medssl.labels.freesurfer import read_aseg_stats, stats_beside, write_mgz

STATS = """# Title Segmentation Statistics
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange
  1   4     6943     7052.1  Left-Lateral-Ventricle            32.0    13.0     6.0    92.0    86.0
  2  17     4508     4401.5  Left-Hippocampus                  77.3     8.8    31.0   115.0    84.0
"""


def test_the_volumes_of_aseg_stats_are_read_by_number(tmp_path: Path) -> None:
    (tmp_path / "aseg.stats").write_text(STATS)
    table = read_aseg_stats(tmp_path / "aseg.stats").set_index("id")
    assert table.loc[17].to_dict() == {"voxels": 4508, "volume_mm3": 4401.5, "name": "Left-Hippocampus"}
    assert table.index.tolist() == [4, 17]


def test_a_line_that_is_no_statistic_is_named(tmp_path: Path) -> None:
    (tmp_path / "aseg.stats").write_text(STATS + "  3  Left-Amygdala\n")
    with pytest.raises(InputError, match=r"aseg.stats: line 5 is '3  Left-Amygdala', expected 'Index SegId"):
        read_aseg_stats(tmp_path / "aseg.stats")


def test_statistics_are_found_from_the_image_of_their_subject(tmp_path: Path) -> None:
    image = tmp_path / "bert" / "mri" / "brain.mgz"
    assert stats_beside(image) is None
    stats = tmp_path / "bert" / "stats" / "aseg.stats"
    stats.parent.mkdir(parents=True)
    stats.write_text(STATS)
    assert stats_beside(image) == stats
    assert stats_beside(tmp_path / "bert" / "brain.mgz") is None


@pytest.mark.parametrize(
    ("given", "stored"), [("uint8", ">u1"), ("uint16", ">i4"), ("int64", ">i4"), ("float64", ">f4")]
)
def test_types_that_mgz_lacks_become_those_that_it_has(tmp_path: Path, given: str, stored: str) -> None:
    data = np.arange(24).reshape(2, 3, 4).astype(given)
    affine = np.array([[-1.0, 0, 0, 5], [0, 0, 1, -3], [0, -1, 0, 2], [0, 0, 0, 1]])
    write_mgz(tmp_path / "aseg.mgz", data, affine)
    image = nib.load(tmp_path / "aseg.mgz")
    assert image.get_data_dtype() == np.dtype(stored)
    assert (np.asanyarray(image.dataobj) == data).all()
    assert np.allclose(image.affine, affine)
