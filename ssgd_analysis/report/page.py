"""A page of verdict, tables and pictures that needs nothing but itself."""

import base64
import csv
import io
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from ssgd_analysis.files import write_text

LONG = 24  # letters of a cell that may take more than one line
PER_INCH = 130  # pixels of the page for an inch of a picture: its small print stays legible

_CSS = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; margin: .5rem 0; } p { max-width: 60rem; }
h2 { font-size: 1.15rem; display: inline; }
.verdict { margin: .4rem 0; border-left: 4px solid #0072b2;
           padding: .4rem 1rem; background: #f2f7fb; }
nav { font-size: .9rem; margin: 1rem 0; } nav a { margin-right: 1.1rem; display: inline-block; }
a { color: #0060a0; } button { font: inherit; font-size: .85rem; cursor: pointer; }
details { border-top: 1px solid #ddd; padding: .6rem 0; }
summary { cursor: pointer; } details > div { scroll-margin-top: 3rem; padding-top: .3rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; }
th { vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
.two td { height: 2.7em; }
td.long { white-space: normal; text-align: left; overflow-wrap: anywhere; }
th.long { text-align: left; } td.long:last-child { min-width: 20rem; }
td.long:not(:last-child) { max-width: 13rem; }
td.long div { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
              overflow: hidden; line-height: 1.3; }
td.long:focus div { -webkit-line-clamp: none; }
.more, .all { display: none; } .all + label { font-size: .85rem; color: #0060a0; cursor: pointer; }
.all + label::before { content: "▸ "; } .all:checked + label::before { content: "▾ "; }
.all:checked ~ .scroll .more, .all:checked ~ .scroll .wide { display: table-cell; }
.all + label.wide { display: none; }
img { max-width: 100%; height: auto; vertical-align: top; margin: .3rem 1rem .3rem 0; }
.note { color: #555; font-size: .9rem; }
@media (max-width: 640px) {
  table { font-size: .75rem; } th, td { padding: .2rem .3rem; }
  .wide { display: none; } .all + label.wide { display: inline; }
  .two td, .two th { white-space: normal; } .two td { height: 5.3em; }
  td.long div { -webkit-line-clamp: 4; }
  td.long:last-child { min-width: 6.5rem; } td.long:not(:last-child) { max-width: 5.5rem; }
}
"""
_UNFOLD = "document.querySelectorAll('details').forEach(one => one.open = true)"


@dataclass(frozen=True)
class Section:
    """One part of the page: it folds.

    Args:
        title: heading.
        text: a paragraph above the rest.
        header: of the table, if there is one.
        rows: of the table.
        pictures: PNG files, put into the page.
        narrow: the same pictures for a narrow screen, as PNG bytes; empty: the large ones.
        wide: columns that a narrow screen does not show until it is asked to.
        more: columns that no screen shows until it is asked to.
        is_open: whether it is unfolded at first; the page's first section always is.
    """

    title: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    pictures: Sequence[Path] = ()
    narrow: Sequence[bytes] = ()
    wide: Collection[str] = ()
    more: Collection[str] = ()
    is_open: bool = False


def write_page(path: Path, title: str, verdict: str, sections: Sequence[Section]) -> Path:
    """Write the page: the verdict, a table of contents, and a fold for each section.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    links = (f'<a href="#s{i}">{escape(one.title)}</a>' for i, one in enumerate(sections))
    body = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="verdict">{escape(line)}</p>' for line in verdict.splitlines()),
        f'<nav>{" ".join(links)} <button onclick="{_UNFOLD}">open all</button></nav>',
        *(_section(one, i) for i, one in enumerate(sections)),
    ]
    write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,">'
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


def _section(section: Section, number: int) -> str:
    parts = []
    if section.text:
        parts.append(f'<p class="note">{escape(section.text)}</p>')
    if section.header:
        parts.append(_table(section, f"t{number}"))
    narrow = [*section.narrow, *[None] * (len(section.pictures) - len(section.narrow))]
    for wide, small in zip(section.pictures, narrow, strict=True):
        parts.append(_image(wide.read_bytes(), small, section.title))
    shown = " open" if section.is_open or number == 0 else ""
    inside = "\n".join(parts)
    return (
        f"<details{shown}><summary><h2>{escape(section.title)}</h2></summary>"
        f'<div id="s{number}">{inside}</div></details>'  # a link to what is inside unfolds it
    )


def _table(section: Section, name: str) -> str:
    """The table, with a switch for the columns that are not shown at first."""
    hidden = [
        "more" if column in section.more else "wide" if column in section.wide else ""
        for column in section.header
    ]
    columns = zip(section.header, zip(*section.rows, strict=True), strict=False)
    long = [name for name, column in columns if max(map(len, column)) > LONG]
    head = "".join(
        f"<th{_classes('long' * (cell in long), kind)}>{escape(cell)}</th>"
        for cell, kind in zip(section.header, hidden, strict=True)
    )
    lines = [
        "".join(_cell(cell, kind) for cell, kind in zip(row, hidden, strict=True))
        for row in section.rows
    ]
    inner = "\n".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table{_classes('two' * bool(long))}><tr>{head}</tr>\n{inner}</table>"
    switch = ""
    if any(hidden):
        kind = _classes("wide" if "more" not in hidden else "")
        switch = f'<input type="checkbox" class="all" id="{name}">'
        switch += f'<label for="{name}"{kind}>all columns</label>'
    return f'<div>{switch}<div class="scroll">{table}</div></div>'


def _classes(*names: str) -> str:
    given = " ".join(filter(None, names))
    return f' class="{given}"' if given else ""


def _cell(text: str, kind: str) -> str:
    if len(text) <= LONG:
        return f"<td{_classes(kind)}>{escape(text)}</td>"
    inside = f'title="{escape(text)}" tabindex="0"><div>{escape(text)}</div>'
    return f"<td{_classes('long', kind)} {inside}</td>"


def _image(wide: bytes, narrow: bytes | None, title: str) -> str:
    image = f'<img alt="{escape(title)}" width="{_pixels(wide)}" src="{_url(wide)}">'
    if narrow is None:
        return image
    source = f'<source media="(max-width: 640px)" srcset="{_url(narrow)}">'
    return f"<picture>{source}{image}</picture>"


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _pixels(png: bytes) -> int:
    """The width on the page, from the width and the resolution that the file states."""
    (width,) = struct.unpack(">I", png[16:20])
    place = png.find(b"pHYs")
    if place < 0:
        return int(width)
    (per_metre,) = struct.unpack(">I", png[place + 4 : place + 8])
    return min(int(width), round(PER_INCH * width / (0.0254 * per_metre)))
