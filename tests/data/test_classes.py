"""Classes of whole images, from a table to a batch."""

import json
import pickle
from pathlib import Path

import pandas as pd
import pytest
from torch.utils.data import DataLoader

from medssl.cli import main
from medssl.data.catalog import Scan, catalog
from medssl.data.classes import classified, read_classes
from medssl.data.crops import CropDataset
from medssl.data.prepare import prepare
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.sample import require


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def scan(name: str, subject: str = "", series: str | None = None) -> Scan:
    return Scan(name, subject or name, Path(name), series=series)


def as_it_is(sample, generator):
    return sample


@pytest.fixture
def table(tmp_path) -> Path:
    """s0 and s3 are sick, s1 is healthy, of s2 nothing is known, and s9 is nobody."""
    return write(tmp_path / "table.csv", "age,scan,class", "4,s3,sick", "5,s1,healthy", "6,s9,healthy", "7,s0,sick")


def test_classes_are_counted_in_alphabetical_order_whatever_the_order_of_rows(tmp_path):
    table = read_classes(write(tmp_path / "t.csv", "scan,class", "b,polyp", "a,normal", "c,polyp", "d,bleeding"))
    assert table.names == ("bleeding", "normal", "polyp")
    assert [table.category(scan(name)) for name in "abcde"] == [1, 2, 2, 0, None]


def test_a_row_of_a_subject_is_of_all_its_scans(tmp_path):
    table = read_classes(write(tmp_path / "t.csv", "Subject,Class", "sub-01,b", "sub-02,a"))
    scans = [scan("sub-01_ses-1", "sub-01"), scan("sub-01_ses-2", "sub-01"), scan("x", "sub-02"), scan("sub-03")]
    assert [table.category(one) for one in scans] == [1, 1, 0, None]


def test_the_scan_decides_where_a_table_names_the_subject_too(tmp_path):
    table = read_classes(write(tmp_path / "t.csv", "subject,scan,class", "p,p_left,a", "p,p_right,b"))
    assert [table.category(scan(name, "p")) for name in ("p_left", "p_right")] == [0, 1]


def test_names_are_read_as_they_are_written(tmp_path):
    lines = ("\ufeffscan\tclass", "007\tNone", "", "8\t", "nan\t1", "9")
    table = read_classes(write(tmp_path / "t.tsv", *lines))
    assert [(row.line, row.named, row.category) for row in table.rows] == [(2, "007", "None"), (5, "nan", "1")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["scan;class", "a;b"], r"t\.csv: a table of classes has the columns .* this one has scan;class"),
        (["name,class", "a,b"], "this one has name, class"),
        (["scan,grade", "a,b"], "this one has scan, grade"),
        ([""], "this one has none"),
        (["scan,class", "a,"], r"t\.csv: no row has both a name and a class"),
        (
            ["scan,class", "a,x", "b,x", "a,y"],
            r"t\.csv: lines 2 and 4 give one scan or subject two classes, 'x' and 'y'",
        ),
    ],
)
def test_a_table_that_says_nothing_or_two_things_is_refused(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        read_classes(write(tmp_path / "t.csv", *lines))


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"scan,class\na,\xff\xfe\n")
    with pytest.raises(InputError, match=r"t\.csv: cannot be read as a table .* UTF-8"):
        read_classes(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        read_classes(tmp_path / "gone.csv")


def test_a_row_beside_dicom_is_named_by_its_line_since_it_can_name_a_patient(tmp_path):
    table = read_classes(write(tmp_path / "t.csv", "subject,class", "Doe^Jane,a", "1f2e,b"))
    assert table.without_scan([scan("1f2e_ct", "1f2e", series="77")]) == ("line 2",)
    with pytest.raises(InputError) as refusal:
        table.check([scan("99_ct", "99", series="77")])
    assert "Doe" not in str(refusal.value)


def test_a_prepared_dataset_knows_the_class_of_every_image(cohort, tmp_path, protocol, table):
    report = prepare(cohort, tmp_path / "out", protocol, jobs=1, classes=table)
    data = PreparedDataset(tmp_path / "out")
    assert data.classes == ("healthy", "sick")
    assert [data.category(i) for i in range(4)] == [1, 0, None, 1]
    assert (report.unclassed, report.unmatched) == (("s2",), ("s9",))
    assert "1 scans have no class: s2." in report.table()
    assert "Warning: 1 rows of classes have no scan: s9." in report.table()


def test_a_class_that_no_scan_shows_is_named(cohort, tmp_path):
    table = write(tmp_path / "t.csv", "scan,class", "s0,a", "nobody,b")
    assert "No scan holds b" in prepare(cohort, tmp_path / "out", jobs=1, classes=table).table()


def test_a_selection_keeps_classes_and_a_worker_gets_them(cohort, tmp_path, table):
    data = prepare(cohort, tmp_path / "out", jobs=1, classes=table).dataset().select(["s1", "s3"])
    there = pickle.loads(pickle.dumps(data))
    assert there.classes == ("healthy", "sick")
    assert [there.category(i) for i in range(2)] == [0, 1]


def test_another_table_changes_the_classes_and_prepares_no_image_again(cohort, tmp_path, table):
    first = prepare(cohort, tmp_path / "out", jobs=1, classes=table).dataset()
    other = write(tmp_path / "other.csv", "subject,class", "s0,b", "s1,b", "s2,a", "s3,c")
    report = prepare(cohort, tmp_path / "out", jobs=1, classes=other)
    assert (report.made, report.kept) == ((), ("s0", "s1", "s2", "s3"))
    assert [report.dataset().category(i) for i in range(4)] == [1, 1, 0, 2]
    assert report.dataset().fingerprint != first.fingerprint
    without = prepare(cohort, tmp_path / "out", jobs=1)
    assert without.made == ()
    assert without.dataset().classes is None
    assert without.dataset().category(0) is None


def test_a_table_of_other_scans_is_refused_before_anything_is_prepared(cohort, tmp_path):
    table = write(tmp_path / "t.csv", "scan,class", "s0_T1w,a")
    with pytest.raises(
        InputError, match=r"t\.csv: none of its 1 rows names a scan .* 4 scans have, for example, s0, s1"
    ):
        prepare(cohort, tmp_path / "out", jobs=1, classes=table)
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_before_there_were_classes_still_opens_and_is_not_done_again(cohort, tmp_path):
    out = tmp_path / "out"
    before = prepare(cohort, out, jobs=1).dataset().fingerprint
    description = json.loads((out / "prepared.json").read_text())
    del description["classes"]
    (out / "prepared.json").write_text(json.dumps(description))
    pd.read_parquet(out / "index.parquet").drop(columns=["category", "channels"]).to_parquet(out / "index.parquet")
    for meta in (out / "scans").glob("*/meta.json"):
        stored = json.loads(meta.read_text())
        del stored["channels"]
        meta.write_text(json.dumps(stored))
    data = PreparedDataset(out)
    assert (data.classes, data.category(0), data.channels, data.fingerprint) == (None, None, 1, before)
    assert "category" not in CropDataset(data, (8, 8, 8), as_it_is)[0]
    again = prepare(cohort, out, jobs=1)
    assert (again.made, again.dataset().channels, again.dataset().fingerprint) == ((), 1, before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_holds_the_category_of_every_crop(cohort, tmp_path, table, workers):
    data = prepare(cohort, tmp_path / "out", jobs=1, classes=table).dataset()
    crops = CropDataset(data, (8, 8, 8), as_it_is, seed=3)
    batch = next(iter(DataLoader(crops, batch_size=4, sampler=range(4), num_workers=workers)))
    require(batch, "category")
    assert sorted(zip(batch["index"].tolist(), batch["category"].tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
        (2, -1),
        (3, 1),
    ]


def test_the_command_takes_a_table(cohort, tmp_path, table, capsys):
    words = ["prepare", str(cohort), "--out", str(tmp_path / "out"), "--classes", str(table), "--jobs", "1"]
    assert main(words) == 0
    assert "s9" in capsys.readouterr().out
    assert PreparedDataset(tmp_path / "out").classes == ("healthy", "sick")
    assert len(catalog(cohort)) == len(PreparedDataset(tmp_path / "out"))


def test_prepared_images_get_the_classes_of_a_table_and_the_disk_keeps_its_own(cohort, tmp_path, table, caplog):
    data = prepare(cohort, tmp_path / "out", jobs=1).dataset()
    with caplog.at_level("INFO", logger="medssl"):
        seen = classified(data, table)
    assert seen.classes == ("healthy", "sick")
    assert [seen.category(i) for i in range(4)] == [1, 0, None, 1]
    assert seen.fingerprint != data.fingerprint and (seen.image(0) == data.image(0)).all()
    assert f"1 of {len(data)} images have no class there" in caplog.text
    assert data.classes is None and PreparedDataset(tmp_path / "out").classes is None
    with pytest.raises(InputError, match=r"none of its 1 rows names a scan.* s0, s1"):
        classified(data, write(tmp_path / "t.csv", "scan,class", "x,sick"))
