"""What ``sharpness`` prints."""

from typing import Any

from ssgd_analysis.cli import console


def print_sharpness(result: dict[str, Any]) -> None:
    """The tables of one checkpoint's record."""
    console.answer(
        f"{result['checkpoint']}: {result['operator']}, {result['split']},"
        f" {result['n_samples']} examples, {result['n_parameters']} parameters,"
        f" loss {console.number(result['loss'])}, accuracy {console.number(result['accuracy'])}"
    )
    for note in result["notes"]:
        console.answer(f"Note: {note}")
    rows = [
        [f"λ{index}", *_doubt(pair), _crossed(pair)]
        for index, pair in enumerate(result["eigenvalues"], start=1)
    ]
    rows.append(["smallest λ", *_doubt(result["smallest_eigenvalue"]), "–"])
    trace = result["trace"]
    rows.append(["trace", console.number(trace["value"]), _errors(trace), "–", "–"])
    for name, metric in result["metrics"].items():
        error = console.number(metric["stderr"], 2)
        rows.append([_noted(name), console.number(metric["value"]), error, "–", "–"])
    console.answer_table(["", "value", "stderr", "residual", "cross-fit"], rows)
    _print_curves(result["metrics"])
    console.answer(f"trace: 95% interval {_interval(trace['low'], trace['high'])} over probes")
    density = result["density"]
    threshold = console.number(density["threshold"], 2)
    for name, where in (("negative", f"below -{threshold}"), ("near_zero", f"within ±{threshold}")):
        ends = [f"{100 * density[name][end]:.3g}%" for end in ("low", "high")]
        console.answer(
            f"{name.replace('_', '-')} eigenvalues ({where}): between {ends[0]} and {ends[1]}"
            f" of all (95%; {density['probes']} probes of {density['steps']} steps tell no more)"
        )
    if "layers" in result:
        console.answer()
        _print_layers(result["layers"])
    plan = result["plan"]
    console.answer(
        f"{result['cost']['matvecs']} {plan['way']} products,"
        f" {plan['micro_batch']} examples at once, in {result['cost']['seconds']:.3g} s"
    )
    if result["stop"] in ("products", "time"):
        what = "budget of products" if result["stop"] == "products" else "time budget"
        worst = max(pair["residual"] or 0.0 for pair in result["eigenvalues"])
        console.say(
            f"Warning: the {what} ended the search short of --tol: residuals up to {worst:.1g}"
        )
    if trace["stop"] in ("max_probes", "time"):
        size = trace["stderr"] / abs(trace["value"]) if trace["value"] else float("inf")
        console.say(
            f"Warning: {trace['probes']} probes leave the trace a standard error of"
            f" {100 * size:.2g}% of its value: "
            + (
                "the time ended"
                if trace["stop"] == "time"
                else "--trace-tol is not met; ask for more with --probes"
            )
        )
    if "cross_check" in result:
        _print_check(result["cross_check"])
    if "rescale_check" in result:
        console.answer()
        _print_rescaled(result["rescale_check"])
    console.answer()


def print_differences(differences: list[dict[str, Any]]) -> None:
    """A table for each checkpoint: its metrics minus those of the first."""
    for entry in differences:
        rows = [
            [
                name,
                console.number(found["difference"]),
                console.number(found["stderr"], 2),
                "pairs" if found["paired"] else "both",
            ]
            for name, found in entry["metrics"].items()
        ]
        if rows:
            title = f"{entry['checkpoint']} minus {entry['from']}"
            console.answer_table(["metric", "difference", "stderr", "error of"], rows, title=title)
            console.answer()


def _noted(name: str) -> str:
    """A metric's name as given, with what its table says of it."""
    from ssgd_analysis.flatness import METRICS

    note = METRICS[name.partition(":")[0]].note
    return f"{name} ({note})" if note else name


def _print_curves(metrics: dict[str, Any]) -> None:
    for name, metric in metrics.items():
        if curve := metric.get("curve"):
            rows = [
                [f"{radius:g}", console.number(value), console.number(error, 2)]
                for radius, value, error in zip(
                    curve["radii"], curve["values"], curve["stderr"], strict=True
                )
            ]
            console.answer_table([curve["over"], "value", "stderr"], rows, title=_noted(name))


def _print_layers(layers: list[dict[str, Any]]) -> None:
    rows = [
        [
            layer["name"],
            str(layer["n_parameters"]),
            *(_doubt(layer["lambda_max"]) if "why" not in layer else ["no time", "–", "–"]),
            *(
                console.number(layer["trace"][key], digits) if "why" not in layer else "–"
                for key, digits in (("value", 4), ("stderr", 2))
            ),
        ]
        for layer in layers
    ]
    header = ["layer", "parameters", "λ1", "stderr", "residual", "trace", "stderr"]
    console.answer_table(header, rows)


def _crossed(pair: dict[str, Any]) -> str:
    """The downward-biased partner of an eigenvalue, with its error."""
    found = pair.get("cross_fit")
    if found is None:
        return "–"
    if found["value"] is None:
        return "no time"
    error = "" if found["stderr"] is None else f" ± {console.number(found['stderr'], 2)}"
    return f"{console.number(found['value'])}{error}"


def _interval(low: float | None, high: float | None) -> str:
    return f"[{console.number(low)}, {console.number(high)}]"


def _errors(trace: dict[str, Any]) -> str:
    """Both errors of a trace: of the probes, and over the examples."""
    probes, examples = trace["stderr"], trace["sampling_stderr"]
    if examples is None:
        return console.number(probes, 2)
    return f"{console.number(probes, 2)} (examples {console.number(examples, 2)})"


def _print_check(check: dict[str, Any]) -> None:
    theirs = check["pyhessian"]
    if theirs is None:
        console.answer(check["note"])
        return
    rows = [
        [
            f"λ{index}",
            *(console.number(pair["value"], 6) for pair in pairs),
            *(console.number(pair["residual"], 2) for pair in pairs),
            right,
        ]
        for index, (*pairs, right) in enumerate(
            zip(check["ours"], theirs, check["right"], strict=True), start=1
        )
    ]
    header = ["cross-check", "ours", "pyhessian", "residual", "residual", "right by the residual"]
    console.answer_table(header, rows)
    console.answer(
        f"largest relative difference {console.number(check['largest_difference'], 2)};"
        f" {check['note']}"
    )


def _print_rescaled(check: dict[str, Any]) -> None:
    """Ratio of each metric after to before, of the two factors that which moved it farther."""
    if "why" in check:
        console.answer(f"rescale check: {check['why']}")
        return
    from ssgd_analysis.sharpness.rescale_check import extreme

    tried = check["transformations"]
    rows = [
        [text, console.number(found["value"])]
        + [console.number(extreme(one["changes"], text)) for one in tried.values()]
        for text, found in check["metrics"].items()
    ]
    moved = [[change["output_change"] for change in one["changes"]] for one in tried.values()]
    places = [[change["done"] for change in one["changes"]] for one in tried.values()]
    rows.append(["outputs moved", "", *(console.number(max(m, default=None), 2) for m in moved)])
    rows.append(["places", "", *(str(len(p[0])) if p else "not found" for p in places)])
    header = [f"same function, a = {check['factor']:g}, 1/a", "value", *(f"× {n}" for n in tried)]
    console.answer_table(header, rows)
    for line in check["says"]:
        console.answer(line)


def _doubt(pair: dict[str, Any]) -> list[str]:
    return [
        console.number(pair["value"]),
        console.number(pair["stderr"], 2),
        console.number(pair["residual"], 2),
    ]
