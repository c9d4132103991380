"""The page of a connection: barriers, paths, settings, cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.connections.profile import barrier_text
from ssgd_analysis.plots.style import short_names
from ssgd_analysis.records import number
from ssgd_analysis.report import Section, write_page

MEANINGS = {
    "line": "the straight line",
    "matched": "the line after permuting the second one's hidden units to match the first's",
    "bezier": "a quadratic Bézier curve that is trained to stay low",
    "chain": "straight pieces over bends that are trained to stay low",
}


def write_connection_page(path: Path, record: Mapping[str, Any], pictures: Sequence[Path]) -> Path:
    """Write the page.

    Args:
        path: the file.
        record: as in ``connect.json``.
        pictures: PNG files of the paths.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    found, splits = record["paths"], list(record["n_samples"])
    first, second = short_names(record["checkpoints"], 40)
    verdict = "\n".join(
        f"{one['path']}: barrier of the {splits[0]} loss {barrier_text(one['barrier'][splits[0]])}"
        for one in found
    )
    header = ["path"]
    for split in splits:
        header += [f"loss barrier, {split}", f"accuracy barrier (%), {split}"]
    rows = [
        [
            one["path"],
            *(
                barrier_text(one[name][split], factor)
                for split in splits
                for name, factor in (("barrier", 1), ("accuracy_barrier", 100))
            ),
            number(one["relative_length"]),
        ]
        for one in found
    ]
    text = "A barrier is the largest height above the line between both ends, ± its sampling error."
    meanings = [f"{o['path']}: {MEANINGS[o['path']]}." for o in found if o["path"] in MEANINGS]
    notes = [*record["notes"], *(f"{o['path']}: {n}" for o in found for n in o["notes"])]
    chosen = [[key, str(value)] for key, value in record["settings"].items()]
    cost = [[one["path"], *(number(v, 3) for v in one["cost"].values())] for one in found]
    sections = [
        Section(
            "Barriers",
            " ".join([text, *meanings, *notes]),
            [*header, "length / distance"],
            rows,
            wide=[name for name in header if name.startswith("accuracy")],
        ),
        Section("Along the paths", "", pictures=pictures, is_open=True),
        Section("Settings", str(record.get("command", "")), ["setting", "value"], chosen),
        Section("Cost", "", ["path", *found[0]["cost"]] if found else (), cost),
    ]
    return write_page(path, f"Connection of {first} and {second}", verdict, sections)
