"""A report as Markdown, for committing: pictures beside it, tables in the text."""

from collections.abc import Sequence
from pathlib import Path

from ssgd_analysis.files import write_text
from ssgd_analysis.report import Section


def write_markdown(path: Path, title: str, verdict: str, sections: Sequence[Section]) -> Path:
    """Write the same sections as the page has; pictures are named relative to it.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    parts = [f"# {title}", f"**{verdict}**"]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.text:
            parts.append(section.text)
        if section.header:
            parts.append(_table(section.header, section.rows))
        parts += [f"![{section.title}]({picture.name})" for picture in section.pictures]
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruled = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, ruled, *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )
