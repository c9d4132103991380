"""Rank correlations as tables, as CSV and as panels of a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDE = ("within groups", "method", "all")

CorrelationRow = tuple[float, tuple[float, float] | None]


def correlation_tables(found: dict[str, Any]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Title → header and rows: metric and view down, outcomes across.

    Each cell is the coefficient with its 95% interval. Single groups are in the CSV only.

    Args:
        found: of ``rank_correlations`` of ``comparison/correlate.py``.
    """
    titles = {"tau": "Kendall's τ", "granulated": "granulated Ψ: all settings but one held fixed"}
    return {
        title: _table(found[kind], found["outcomes"], "tau" if kind == "tau" else "psi")
        for kind, title in titles.items()
    }


def _table(
    rows: Sequence[dict[str, Any]], outcomes: dict[str, str], key: str
) -> tuple[list[str], list[list[str]]]:
    wide = [row for row in rows if row["scope"] in WIDE]
    cells = {(r["metric"], r["name"], r["outcome"]): r for r in wide}
    lines: list[list[str]] = []
    before = ""
    for metric, view in dict.fromkeys((r["metric"], r["name"]) for r in wide):
        own = [cells[metric, view, outcome] for outcome in outcomes]
        counts = list(dict.fromkeys(str(row["n"]) for row in own))
        shown = "" if metric == before else metric
        lines.append([shown, view, "/".join(counts), *[_cell(row[key], row) for row in own]])
        before = metric
    return ["metric", "over", "n", *outcomes.values()], lines


def correlation_csv(found: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Header and one row a coefficient, Ψ and those of its axes too."""
    rows: list[list[object]] = [
        [r["metric"], r["outcome"], "tau", r["scope"], r["name"], r["tau"], *_rest(r)]
        for r in found["tau"]
    ]
    for r in found["granulated"]:
        pair = [r["metric"], r["outcome"]]
        rows.append([*pair, "psi", r["scope"], r["name"], r["psi"], *_rest(r)])
        for axis, own in r["axes"].items():
            name = f"{r['name']}: {axis}"
            rows.append([*pair, "psi of axis", r["scope"], name, own["psi"], *[None] * 4])
    header = ["metric", "outcome", "coefficient", "scope", "name", "value", "low", "high", "n"]
    return [*header, "why"], rows


def correlation_panels(
    found: dict[str, Any] | None, names: Mapping[str, str]
) -> dict[str, dict[str, dict[str, tuple[CorrelationRow | None, CorrelationRow | None]]]]:
    """Outcome in words → metric → view → (τ, Ψ), each with its interval, for the picture.

    Args:
        found: of ``rank_correlations`` of ``comparison/correlate.py``; ``None``: there is none.
        names: metric → its name in pictures.
    """
    if found is None:
        return {}
    panels: dict[
        str, dict[str, dict[str, tuple[CorrelationRow | None, CorrelationRow | None]]]
    ] = {}
    for outcome, words in found["outcomes"].items():
        own: dict[str, dict[str, tuple[CorrelationRow | None, CorrelationRow | None]]] = {}
        taus, psis = (
            {
                (r["metric"], r["name"]): (r[key], r["ci95"])
                for r in found[kind]
                if _is_shown(r, outcome)
            }
            for kind, key in (("tau", "tau"), ("granulated", "psi"))
        )
        for metric, view in taus:
            tau, psi = (
                pair if pair is not None and pair[0] is not None else None
                for pair in (taus[metric, view], psis.get((metric, view)))
            )
            if tau is not None or psi is not None:
                own.setdefault(names.get(metric, metric), {})[view] = (tau, psi)
        if own:
            panels[words] = own
    return panels


def _is_shown(row: dict[str, Any], outcome: str) -> bool:
    return row["outcome"] == outcome and row["scope"] in WIDE


def _cell(value: float | None, row: dict[str, Any]) -> str:
    if value is None:
        return "–"
    interval = "" if not row["ci95"] else " [{:+.2f}, {:+.2f}]".format(*row["ci95"])
    return f"{value:+.2f}{interval}"


def _rest(row: dict[str, Any]) -> list[object]:
    return [*(row["ci95"] or (None, None)), row["n"], row["why"] or None]
