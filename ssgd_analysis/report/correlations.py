"""Tables of rank correlations, for people and as CSV."""

from typing import Any

WIDE = ("within groups", "method", "all")


def correlation_tables(found: dict[str, Any]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Outcome in words → header and rows: metrics down, views across.

    Each cell is τ [95% interval] n, or Ψ for the granulated coefficient of all runs. Single
    groups are left to the CSV.

    Args:
        found: of :func:`ssgd_analysis.compare.correlate.correlate`.
    """
    tables = {}
    for outcome, words in found["outcomes"].items():
        taus = [r for r in found["tau"] if r["outcome"] == outcome and r["scope"] in WIDE]
        cells = {(r["metric"], r["name"]): _cell(r["tau"], r) for r in taus}
        views = list(dict.fromkeys(r["name"] for r in taus))
        for row in found["granulated"]:
            if row["outcome"] == outcome:
                view = f"Ψ {row['name']}"
                cells[row["metric"], view] = _cell(row["psi"], row)
                views += [view] if view not in views else []
        metrics = list(dict.fromkeys(r["metric"] for r in taus))
        rows = [[metric, *(cells.get((metric, v), "–") for v in views)] for metric in metrics]
        tables[words] = (["metric", *views], rows)
    return tables


def correlation_csv(found: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Header and one row a coefficient, Ψ and those of its axes too."""
    rows: list[list[object]] = [
        [r["metric"], r["outcome"], "tau", r["scope"], r["name"], r["tau"], *_rest(r)]
        for r in found["tau"]
    ]
    for r in found["granulated"]:
        place = [r["metric"], r["outcome"]]
        rows.append([*place, "psi", r["scope"], r["name"], r["psi"], *_rest(r)])
        for axis, own in r["axes"].items():
            name = f"{r['name']}: {axis}"
            rows.append([*place, "psi of axis", r["scope"], name, own["psi"], *[None] * 4])
    header = ["metric", "outcome", "coefficient", "scope", "name", "value", "low", "high", "n"]
    return [*header, "why"], rows


def correlation_panels(found: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Outcome in words → metric → view → (coefficient, interval), for the picture."""
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    for outcome, words in found["outcomes"].items():
        own: dict[str, dict[str, Any]] = {}
        for r in found["tau"]:
            if r["outcome"] == outcome and r["scope"] in WIDE and r["tau"] is not None:
                own.setdefault(r["metric"], {})[f"τ {r['name']}"] = (r["tau"], r["ci95"])
        last = [r for r in found["granulated"] if r["outcome"] == outcome]
        for r in last:
            if r["psi"] is not None:
                own.setdefault(r["metric"], {})[f"Ψ {r['name']}"] = (r["psi"], r["ci95"])
        if own:
            panels[words] = own
    return panels


def _cell(value: float | None, row: dict[str, Any]) -> str:
    if value is None:
        return f"– (n={row['n']})"
    interval = "" if not row["ci95"] else " [{:+.2f}, {:+.2f}]".format(*row["ci95"])
    return f"{value:+.2f}{interval} n={row['n']}"


def _rest(row: dict[str, Any]) -> list[object]:
    return [*(row["ci95"] or (None, None)), row["n"], row["why"] or None]
