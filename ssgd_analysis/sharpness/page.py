"""The page of measured checkpoints: spectrum, metrics and their meaning, layers, checks, cost."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.pictures.paper import unequal_losses
from ssgd_analysis.plots.style import short_names
from ssgd_analysis.records import number
from ssgd_analysis.report import Section, write_page
from ssgd_analysis.sharpness.tables import (
    Table,
    cross_check_parts,
    density_lines,
    difference_tables,
    layer_table,
    rescale_check_parts,
)

Document = Mapping[str, Any]


def write_sharpness_page(path: Path, answer: Document, pictures: Sequence[Path]) -> Path:
    """Write the page.

    Args:
        path: the file.
        answer: as in ``sharpness.json``.
        pictures: PNG files of the densities and, if there are any, of the curves.

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    found = answer["checkpoints"]
    names = short_names([one["checkpoint"] for one in found], 40)
    lines = [_headline(one, name) for one, name in zip(found, names, strict=True)]
    losses = {name: one["loss"] for one, name in zip(found, names, strict=True)}
    caveat = unequal_losses(losses)
    titles = ("Spectrum", "Curves over the radius")
    drawn = [
        Section(title, _spectrum(found, names) if title == "Spectrum" else "", pictures=[picture])
        for title, picture in zip(titles, pictures, strict=False)
    ]
    own = [
        part
        for one, name in zip(found, names, strict=True)
        for part in _sections(one, f", {name}" if len(found) > 1 else "")
    ]
    short = dict(zip([one["checkpoint"] for one in found], names, strict=True))
    named = [
        {**one, "checkpoint": short[one["checkpoint"]], "from": short[one["from"]]}
        for one in answer.get("differences", [])
    ]
    differences = [
        _section(f"{one['checkpoint']} minus {one['from']}", difference_tables([one]))
        for one in named
        if one["metrics"]
    ]
    verdict = "\n".join([*lines, f"Note: {caveat}."] if caveat else lines)
    return write_page(path, "Sharpness", verdict, [*drawn[:1], *own, *drawn[1:], *differences])


def _headline(found: Document, name: str) -> str:
    first, trace = found["eigenvalues"][0], found["trace"]
    return (
        f"{name}: λ_max {_pair(first)}, trace {_pair(trace)} of the {found['operator']};"
        f" {found['split']} loss {number(found['loss'])}, accuracy {number(found['accuracy'])}"
    )


def _pair(entry: Document) -> str:
    error = entry["stderr"]
    return number(entry["value"]) + ("" if error is None else f" ± {number(error, 2)}")


def _spectrum(found: Sequence[Document], names: Sequence[str]) -> str:
    parts = [
        (f"{name}: " if len(found) > 1 else "") + "; ".join(density_lines(one["density"]))
        for one, name in zip(found, names, strict=True)
    ]
    return ". ".join(parts)


def _sections(found: Document, ending: str) -> list[Section]:
    values = [
        [f"λ{i}", number(pair["value"]), number(pair["stderr"], 2), number(pair["residual"], 2)]
        for i, pair in enumerate(found["eigenvalues"], start=1)
    ]
    last, trace = found["smallest_eigenvalue"], found["trace"]
    values.append(
        [
            "smallest λ",
            number(last["value"]),
            number(last["stderr"], 2),
            number(last["residual"], 2),
        ]
    )
    values.append(["trace", number(trace["value"]), number(trace["stderr"], 2), "–"])
    text = "The error of an eigenvalue is that of sampling the examples, of the trace the probes'."
    header = ["", "value", "stderr", "residual"]
    sections = [Section(f"Eigenvalues{ending}", text, header, values)]
    if found["metrics"]:
        sections.append(_metrics(found["metrics"], ending))
    if "layers" in found:
        sections.append(_section(f"Layers{ending}", [layer_table(found["layers"])]))
    if "cross_check" in found:
        title = f"Check against PyHessian{ending}"
        sections.append(_section(title, cross_check_parts(found["cross_check"])))
    if "rescale_check" in found:
        title = f"Check by rescaling{ending}"
        sections.append(_section(title, rescale_check_parts(found["rescale_check"])))
    return [*sections, _cost(found, ending)]


def _metrics(metrics: Document, ending: str) -> Section:
    rows = [
        [
            NAMES.get(name, name),
            number(found["value"]),
            number(found["stderr"], 2),
            METRICS[name.partition(":")[0]].summary,
        ]
        for name, found in metrics.items()
    ]
    return Section(f"Metrics{ending}", "", ["metric", "value", "stderr", "meaning"], rows)


def _cost(found: Document, ending: str) -> Section:
    plan, cost = found["plan"], found["cost"]
    rows = [
        ["examples", f"{found['n_samples']:,}"],
        ["parameters", f"{found['n_parameters']:,}"],
        ["products with the matrix", f"{cost['matvecs']:,}"],
        ["way", plan["way"]],
        ["examples at once", str(plan["micro_batch"])],
        ["seconds", number(cost["seconds"], 3)],
    ]
    return Section(f"Cost{ending}", " ".join(found.get("notes", [])), ["", "value"], rows)


def _section(title: str, parts: Iterable[Table | str]) -> Section:
    """Lines as the text, a table as the table."""
    parts = list(parts)
    says = [part if isinstance(part, str) else part.title for part in parts]
    text = ". ".join(filter(None, says))
    tables = [part for part in parts if isinstance(part, Table)]
    return Section(title, text, *((tables[0].header, tables[0].rows) if tables else ()))
