"""One HTML file that holds all it shows, so that it can be mailed and opened anywhere."""

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from medssl.errors import InputError
from medssl.files import write_aside

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
img { max-width: 100%; display: block; margin: 1rem 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #222; }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        heading: Its title.
        text: Plain text; an empty line parts paragraphs.
        table: Shown with its columns' names and without its index; numbers with four digits.
        pictures: Files, for example PNG; they are put into the page, without their names, which may be those of scans.
        links: What lies beside the page and is too large to be put into it: its address, from the page, by what to call
            it.
    """

    heading: str
    text: str = ""
    table: pd.DataFrame | None = None
    pictures: Sequence[Path] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def html_report(title: str, sections: Sequence[Section], path: Path) -> None:
    """Write a page that needs no other file and no network.

    Raises:
        InputError: A picture is missing, or is of no known kind of picture.
    """
    body = "\n".join(_section(section) for section in sections)
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
    with write_aside(path) as aside:
        aside.write_text(page, encoding="utf-8")


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    parts += [f"<p>{escape(paragraph.strip())}</p>" for paragraph in section.text.split("\n\n") if paragraph.strip()]
    if section.table is not None:
        table = section.table.to_html(index=False, border=0, na_rep="–", float_format="{:.4g}".format, escape=True)
        parts.append(f'<div class="table">{table}</div>')
    parts += [_picture(picture, section.heading) for picture in section.pictures]
    parts += [f'<p><a href="{escape(quote(at))}">{escape(name)}</a></p>' for name, at in section.links.items()]
    return "\n".join(parts)


def _picture(path: Path, about: str) -> str:
    kind, _ = mimetypes.guess_type(path.name)
    if kind is None or not kind.startswith("image/"):
        raise InputError(f"{path}: its ending is not that of a picture (.png, .svg, .jpg).")
    if not path.is_file():
        raise InputError(f"{path}: no such picture.")
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img src="data:{kind};base64,{data}" alt="{escape(about)}">'
