"""A page is one file, and what it quotes cannot break it."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from medssl.errors import InputError
from medssl.report import Section, html_report


class Texts(HTMLParser):
    """Collects the text of each tag, as a browser would read it."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if data.strip():
            self.found.append((self.open[-1], data.strip()))


@pytest.fixture
def page(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG picture")
    table = pd.DataFrame({"structure": ["<b>A & B</b>", "C"], "dice": [0.123456789, np.nan]})
    sections = [Section("Arms <1>", "One & two.\n\nThree.", table, [tmp_path / "a.png"]), Section("Nothing more")]
    html_report("Brain <script>alert(1)</script>", sections, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_page_shows_what_it_was_given_with_nothing_run_or_swallowed(page):
    found = Texts(page).found
    assert ("h1", "Brain <script>alert(1)</script>") in found
    assert ("h2", "Arms <1>") in found
    assert [text for tag, text in found if tag == "p"] == ["One & two.", "Three."]
    assert [text for tag, text in found if tag == "td"] == ["<b>A & B</b>", "0.1235", "C", "–"]
    assert "<script" not in page


def test_pictures_are_called_after_their_heading_and_never_after_their_file(tmp_path):
    """A picture of a scan is named after the scan, and a page is tracked."""
    (tmp_path / "Erika_Mustermann_qc.png").write_bytes(b"picture")
    section = Section('A "quoted" arm', pictures=[tmp_path / "Erika_Mustermann_qc.png"])
    html_report("Page", [section], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'alt="A &quot;quoted&quot; arm"' in page and "Erika" not in page


def test_a_page_needs_no_other_file_and_no_network(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 1
    assert base64.b64decode(sources[0].removeprefix("data:image/png;base64,")) == b"\x89PNG picture"
    assert "http" not in page


@pytest.mark.parametrize(
    ("name", "message"), [("missing.png", "no such picture"), ("notes.txt", "not that of a picture")]
)
def test_what_is_no_picture_is_refused_by_name_and_no_page_is_left(tmp_path, name, message):
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        html_report("x", [Section("y", pictures=[tmp_path / name])], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
