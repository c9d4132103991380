"""Pictures of a study, drawn from its result: gains, strengths, variances, tuning."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.plots import AxisPanel, axis_figure, tuning_figure

PictureRows = Sequence[Mapping[str, Any]]


def answer_figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """Name → picture of the numbers behind the answer."""
    answer, figures = result["answer"], {}
    if answer.get("strength"):
        figures["strength"] = strength_figure(answer)
    elif any(gain["mean"] is not None for gain in answer.get("gains", ())):
        figures["gains"] = gains_figure(answer, result["settings"])
    if result.get("variance"):
        figures["variance"] = variance_figure(result["variance"])
    return figures


def gains_figure(answer: Mapping[str, Any], settings: Sequence[str]) -> Figure:
    """The focus's paired gain over every rival, setting by setting."""
    positions = answer.get("places") or {name: float(i) for i, name in enumerate(settings)}
    gains = [gain for gain in answer["gains"] if gain["mean"] is not None]
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for gain in gains:
        low, high = gain["ci95"] or (gain["mean"], gain["mean"])
        lines.setdefault(f"over {gain['rival']}", []).append(
            (positions[gain["setting"]], gain["mean"], low, high)
        )
    focus = gains[0]["arm"]
    panel = AxisPanel(f"gain of {focus} (points)", lines, zero=True)
    return axis_figure(
        [panel],
        xlabel=answer.get("axis", "").replace("_", " "),
        ticks={position: name for name, position in positions.items()},
        joined=False,
    )


def strength_figure(answer: Mapping[str, Any]) -> Figure:
    """Accuracy, λ_max and train loss against the strength, setting by setting."""
    rows, axis = answer["strength"], answer["axis"].replace("_", " ")
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    positions = sorted({row["place"] for row in rows if row["place"] is not None})
    # evenly: zero has no logarithm
    spread = {position: float(i) for i, position in enumerate(positions)}
    panels = []
    for metric in ("test_accuracy", "lambda_max", "train_loss"):
        factor = 100 if metric == "test_accuracy" else 1
        measured = [row for row in rows if row[metric]]
        if not measured:
            continue
        lines: dict[str, list[tuple[float, float, float, float]]] = {}
        levels = {}
        for row in measured:
            mean = factor * row[metric]["mean"]
            if row["place"] is None:
                name = ", ".join(filter(None, (row["arm"], row["setting"])))
                levels[name] = mean
            else:
                low, high = row[metric]["ci95"] or (row[metric]["mean"],) * 2
                lines.setdefault(row["setting"] or "strengths", []).append(
                    (spread[row["place"]], mean, factor * low, factor * high)
                )
        ordered = {s or "strengths": sorted(lines[s or "strengths"]) for s in settings}
        name = NAMES[metric] + (" (%)" if factor == 100 else "")
        panels.append(AxisPanel(name, ordered, levels))
    return axis_figure(panels, xlabel=axis, ticks={spread[p]: f"{p:g}" for p in positions})


def variance_figure(rows: PictureRows) -> Figure:
    """Variance of every arm, and its share of the compared arm's, against the scale."""
    scales = sorted({row["scale"] for row in rows})
    panels = []
    for weights in dict.fromkeys(row["weights"] for row in rows):
        own = [row for row in rows if row["weights"] == weights]
        lines: dict[str, list[tuple[float, float, float, float]]] = {}
        for row in own:
            if row["variance"] > 0:
                point = (row["scale"], row["variance"], row["variance"], row["variance"])
                lines.setdefault(row["arm"], []).append(point)
        label = "gradient-noise variance"
        panels.append(AxisPanel(label, lines, log=True, title=f"{weights} weights"))
    return axis_figure(
        panels, xlabel="noise scale c", ticks={s: f"{s:g}" for s in scales}, log=True
    )


def tuning_figures(record: Mapping[str, Any]) -> dict[str, Figure]:
    """The trials of every arm against the tuned quantities; empty if nothing was tuned."""
    settings: dict[str, dict[str, dict[str, Any]]] = {}
    log: dict[str, bool] = {}
    for one in record["arms"]:
        finished = [(i, t) for i, t in enumerate(one["trials"]) if t["val_accuracy"] is not None]
        for name, range_ in one["ranges"].items():
            log[name] = range_["log"]
            order = [i for i, _ in finished]
            chosen = one["chosen_trial"]
            settings.setdefault(one["setting"], {}).setdefault(name, {})[one["arm"]] = (
                [t["values"][name] for _, t in finished],
                [t["val_accuracy"] for _, t in finished],
                order.index(chosen) if chosen is not None else None,
            )
    return {"tuning": tuning_figure(settings, log=log)} if settings else {}
