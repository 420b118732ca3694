"""Patterns whose wildcards are read from one path and filled into another."""

from pathlib import Path

import pytest

from medssl.data.globs import Glob


@pytest.mark.parametrize(
    ("pattern", "path", "filled", "name"),
    [
        ("*_T1w.nii.gz", "1000_T1w.nii.gz", ("1000",), "1000"),
        ("images/*.nii.gz", "images/a.b.nii.gz", ("a.b",), "a.b"),
        ("**/*_T1w.nii.gz", "sub-1/anat/sub-1_ses-2_T1w.nii.gz", ("sub-1/anat/", "sub-1_ses-2"), "sub-1_ses-2"),
        ("**/*_T1w.nii.gz", "x_T1w.nii.gz", ("", "x"), "x"),
        ("*/T1.nii.gz", "anna/T1.nii.gz", ("anna",), "anna"),
        ("site*/img?.nii", "site3/img7.nii", ("3", "7"), "3_7"),
        ("*/anat/*_T1w.nii", "sub-1/anat/sub-1_T1w.nii", ("sub-1", "sub-1"), "sub-1"),
    ],
)
def test_wildcards_are_read_and_filled_back(tmp_path, pattern, path, filled, name):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("")
    (tmp_path / "other.txt").write_text("")
    glob = Glob(pattern)
    assert list(glob.matches(tmp_path)) == [(tmp_path / path, filled)]
    assert glob.fill(filled) == path
    assert glob.name(filled) == name
    assert glob.wildcards == len(filled)
    assert glob.holds(Path(path))


def test_hidden_files_never_match(tmp_path):
    (tmp_path / "._a.nii").write_text("")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "b.nii").write_text("")
    assert list(Glob("**/*.nii").matches(tmp_path)) == []


def test_dots_and_brackets_of_a_pattern_mean_themselves():
    assert not Glob("a.nii").holds(Path("axnii"))
    assert Glob("a(1)*.nii").holds(Path("a(1)b.nii"))
