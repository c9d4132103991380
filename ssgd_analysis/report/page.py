"""A page of verdict, tables and pictures that needs nothing but itself."""

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from ssgd_analysis.files import write_text

_CSS = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.verdict { border-left: 4px solid #0072b2; padding: .4rem 1rem; background: #f2f7fb; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.long { white-space: normal; text-align: left; min-width: 18rem; }
img { max-width: 100%; height: auto; }
.note { color: #555; font-size: .9rem; }
"""


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Args:
        title: heading.
        text: a paragraph above the rest.
        header: of the table, if there is one.
        rows: of the table.
        pictures: PNG files, put into the page.
    """

    title: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    pictures: Sequence[Path] = ()


def write_page(path: Path, title: str, verdict: str, sections: Sequence[Section]) -> Path:
    """Write the page.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    body = [f"<h1>{escape(title)}</h1>", f'<p class="verdict">{escape(verdict)}</p>']
    for section in sections:
        body.append(f"<h2>{escape(section.title)}</h2>")
        if section.text:
            body.append(f'<p class="note">{escape(section.text)}</p>')
        if section.header:
            body.append(_table(section.header, section.rows))
        body.extend(_image(picture, section.title) for picture in section.pictures)
    write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n",
    )
    return path


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a CSV file; ``None`` becomes an empty cell.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    write_text(path, buffer.getvalue())
    return path


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["".join(_cell(cell) for cell in row) for row in rows]
    inner = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{head}</tr>\n{inner}</table></div>'


def _cell(text: str) -> str:
    kind = ' class="long"' if len(text) > 40 else ""
    return f"<td{kind}>{escape(text)}</td>"


def _image(picture: Path, title: str) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
