"""How far each metric of a network moves when its weights change and its function does not."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ssgd_analysis import seeds
from ssgd_analysis.curvature import Options
from ssgd_analysis.errors import InputError, OutOfTimeError, WorkError, first_line
from ssgd_analysis.flatness import METRICS, Measurement, difference, parse_metric
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.symmetries import PRESERVING, TRANSFORMATIONS, Changed, tolerance

RESCALINGS = ("layer", "neuron", "batchnorm")
STILL = 0.05  # a metric that moved by less is said to have stayed, whatever it claims


def rescale_check(
    problem: Problem,
    metrics: Sequence[str] = (),
    *,
    factor: float = 5.0,
    seed: int = 0,
    options: Options | None = None,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Metrics of a network and of copies that compute the same with other weights.

    Transformations that depend on a factor are tried with a and with 1/a.

    Args:
        problem: is left alone.
        metrics: names, with settings as in :func:`ssgd_analysis.flatness.parse_metric`. Of those
            that comparisons measure by default, the ones that rescaling moves (λ_max, trace)
            come first in any case, and the others (expected, adaptive_worst) are the default.
        factor: a.
        seed: of all that is random, the same for all copies.
        options: how curvature products are made.
        deadline: of ``time.monotonic()``; metrics of copies that do not fit are ``None`` with the
            reason ``why``.
        progress: shows every copy.

    Returns:
        ``factor``, ``tolerance`` (relative change of outputs that counts as none), ``metrics``
        (before: value and stderr), ``transformations`` (each with ``changes``: the ``factor``,
        what was ``done``, ``output_change``, and ``metrics`` after with ``ratio`` = after /
        before; no change where nothing was found) and ``says``, what follows in words.

    Raises:
        InputError: an unknown metric, a bad factor, or a model that can't be copied.
        WorkError: a metric of the network itself is not finite.
        OutOfTimeError: those of the network itself do not fit before the deadline.
    """
    compared = {name: metric for name, metric in METRICS.items() if metric.compared}
    decide = [name for name, metric in compared.items() if metric.invariant({})]
    move = [name for name in compared if name not in decide]
    texts = tuple(dict.fromkeys((*move, *(metrics or decide))))
    tables = {n: entry for n, entry in TRANSFORMATIONS.items() if entry.kind == PRESERVING}
    progress.start("rescale check", 1 + sum(1 + entry.scales for entry in tables.values()))

    def measured(of: Problem) -> dict[str, Measurement | Exception]:
        context = MetricContext(of, seed, options=options, deadline=deadline)
        found = {text: _measured(context, text) for text in texts}
        progress.advance()
        return found

    before = {}
    for text, found in measured(problem).items():
        if isinstance(found, OutOfTimeError):
            raise found
        if isinstance(found, Exception):
            raise type(found)(f"metric {text}: {found}") from found
        before[text] = found
    tried: dict[str, Any] = {}
    for name, entry in tables.items():
        changes = []
        for size in (factor, 1 / factor) if entry.scales else (factor,):
            changed = entry(problem, size, seeds.generator(seed, "transformation", name))
            if changed.done:
                row = _row(changed, before, measured(changed.problem))
                changes.append({"factor": size if entry.scales else None, **row})
        tried[name] = {"summary": entry.summary, "found": bool(changes), "changes": changes}
    record = {
        "factor": factor,
        "tolerance": tolerance(next(iter(problem.parameters.values()))),  # outputs are alike
        "seed": seed,
        "metrics": {
            text: {
                "value": found.value,
                "stderr": found.stderr,
                "invariant_to": list(_invariances(text)),
            }
            for text, found in before.items()
        },
        "transformations": tried,
    }
    return {**record, "says": list(_says(record))}


def extreme(changes: Sequence[dict[str, Any]], metric: str) -> float | None:
    """The ratio of a metric farthest from one over some changes; ``None`` where there is none."""
    entries = [change["metrics"][metric]["ratio"] for change in changes]
    ratios = [ratio for ratio in entries if ratio is not None]
    return max(ratios, key=_distance, default=None)


def _distance(ratio: float) -> float:
    return max(ratio, 1 / ratio) if ratio > 0 else float("inf")


def _invariances(text: str) -> tuple[str, ...]:
    name, settings = parse_metric(text)
    metric = METRICS[name]
    return metric.invariances({**metric.defaults, **settings})


def _measured(context: MetricContext, text: str) -> Measurement | Exception:
    """A measurement, or why there is none."""
    name, settings = parse_metric(text)
    try:
        return METRICS[name].on(context, **settings)
    except (InputError, WorkError) as error:
        return error


def _row(
    changed: Changed, before: dict[str, Measurement], after: dict[str, Measurement | Exception]
) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for text, old in before.items():
        new = after[text]
        if isinstance(new, Exception):
            why = first_line(new)
            metrics[text] = {"value": None, "stderr": None, "ratio": None, "why": why}
            continue
        moved, error = difference(new, old)
        metrics[text] = {
            "value": new.value,
            "stderr": new.stderr,
            "ratio": new.value / old.value if old.value else (None if moved else 1.0),
            "difference": moved,
            "difference_stderr": error,
        }
    changes = {f.name: getattr(changed, f.name) for f in dataclasses.fields(changed)}
    del changes["problem"]
    return {**changes, "metrics": metrics}


def _says(record: dict[str, Any]) -> Iterator[str]:
    """A sentence for each metric that can be moved; the first one says what the others did."""
    tried = {name: record["transformations"][name]["changes"] for name in RESCALINGS}
    changes = [(name, change) for name in RESCALINGS for change in tried[name]]
    if not changes:
        yield "no rescaling was found that leaves the outputs of this network as they are"
        return
    moved, stayed = [], []
    for text in record["metrics"]:
        name, _, settings = text.partition(":")
        label = ":".join(filter(None, (METRICS[name].label, settings)))
        rows = [(kind, change, change["metrics"][text]["ratio"]) for kind, change in changes]
        measured = [row for row in rows if row[2] is not None]
        if not measured:
            continue
        kind, change, ratio = max(measured, key=lambda row: (row[2] > 1 + STILL, _distance(row[2])))
        if _distance(ratio) <= 1 + STILL:
            stayed.append(f"{label} moved {100 * abs(ratio - 1):.1f}%")
        else:
            moved.append(
                f"{label} of this network can be made {_times(ratio)} without changing its"
                f" function ({kind}, factor {change['factor']:g})"
            )
    yield "; ".join([*moved[:1], *stayed])
    yield from moved[1:]


def _times(ratio: float) -> str:
    if ratio <= 0:
        return f"{ratio:.2g} times what it is"
    return f"{ratio:.2g} times larger" if ratio > 1 else f"{1 / ratio:.2g} times smaller"
