"""The record of a checkpoint as tables and sentences, for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssgd_analysis.flatness import METRICS
from ssgd_analysis.records import number
from ssgd_analysis.sharpness.rescale_check import extreme

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Numbers as text.

    Args:
        header: of the columns.
        rows: as long as the header each.
        title: stands above; may be empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


def checkpoint_tables(found: Document) -> Iterator[Table | str]:
    """Tables and lines of one checkpoint's JSON object, in the order of reading."""
    yield (
        f"{found['checkpoint']}: {found['operator']}, {found['split']},"
        f" {found['n_samples']} examples, {found['n_parameters']} parameters,"
        f" loss {number(found['loss'])}{_loss_name(found)}, accuracy {number(found['accuracy'])}"
    )
    yield from (f"Note: {note}" for note in found["notes"])
    yield _quantities(found)
    yield from _curves(found["metrics"])
    trace = found["trace"]
    yield f"trace: 95% interval {_interval(trace['low'], trace['high'])} over probes"
    yield from density_lines(found["density"])
    if "layers" in found:
        yield ""
        yield layer_table(found["layers"])
    plan = found["plan"]
    yield (
        f"{found['cost']['matvecs']} {plan['way']} products,"
        f" {plan['micro_batch']} examples at once, in {found['cost']['seconds']:.3g} s"
    )
    if "cross_check" in found:
        yield from cross_check_parts(found["cross_check"])
    if "rescale_check" in found:
        yield ""
        yield from rescale_check_parts(found["rescale_check"])
    yield ""


def checkpoint_warnings(found: Document) -> Iterator[str]:
    """What fell short of the settings of one checkpoint's JSON object."""
    if found["stop"] in ("products", "time"):
        what = "budget of products" if found["stop"] == "products" else "time budget"
        worst = max(pair["residual"] or 0.0 for pair in found["eigenvalues"])
        yield f"the {what} ended the search short of --tol: residuals up to {worst:.1g}"
    trace = found["trace"]
    if trace["stop"] in ("max_probes", "time"):
        size = trace["stderr"] / abs(trace["value"]) if trace["value"] else float("inf")
        why = (
            "the time ended"
            if trace["stop"] == "time"
            else "--trace-tol is not met; ask for more with --probes"
        )
        yield (
            f"{trace['probes']} probes leave the trace a standard error of"
            f" {100 * size:.2g}% of its value: {why}"
        )


def difference_tables(differences: Sequence[Document]) -> Iterator[Table | str]:
    """A table for each checkpoint but the first: its metrics minus those of the first.

    The losses stand beside it, and a caveat where they are too different.
    """
    for entry in differences:
        rows = [
            [
                name,
                number(found["difference"]),
                number(found["stderr"], 2),
                "pairs" if found["paired"] else "both",
            ]
            for name, found in entry["metrics"].items()
        ]
        if rows:
            a, b = map(number, entry["losses"])
            title = (
                f"{entry['checkpoint']} minus {entry['from']}; loss {a} and {b}"
                f" ({entry['loss_gap']:.1%} apart)"
            )
            yield Table(["metric", "difference", "stderr", "error of"], rows, title)
        if entry["caveat"]:
            yield f"{entry['checkpoint']} and {entry['from']} are not comparable: {entry['caveat']}"
        if rows or entry["caveat"]:
            yield ""


def _loss_name(found: Document) -> str:
    return f" ({found['loss_name']})" if found.get("loss_name") else ""


def _quantities(found: Document) -> Table:
    rows = [
        [f"λ{index}", *_with_errors(pair), _crossed(pair)]
        for index, pair in enumerate(found["eigenvalues"], start=1)
    ]
    rows.append(["smallest λ", *_with_errors(found["smallest_eigenvalue"]), "–"])
    trace = found["trace"]
    rows.append(["trace", number(trace["value"]), _errors(trace), "–", "–"])
    for name, metric in found["metrics"].items():
        error = number(metric["stderr"], 2)
        rows.append([_noted(name), number(metric["value"]), error, "–", "–"])
    return Table(["", "value", "stderr", "residual", "cross-fit"], rows)


def density_lines(density: Document) -> Iterator[str]:
    """The shares of negative and of small eigenvalues, with their intervals."""
    threshold = number(density["threshold"], 2)
    for name, where in (("negative", f"below -{threshold}"), ("near_zero", f"within ±{threshold}")):
        ends = [f"{100 * density[name][end]:.3g}%" for end in ("low", "high")]
        yield (
            f"{name.replace('_', '-')} eigenvalues ({where}): between {ends[0]} and {ends[1]}"
            f" of all (95% interval of {density['probes']} probes of {density['steps']} steps)"
        )


def _noted(name: str) -> str:
    """A metric's name as given, with its note."""
    note = METRICS[name.partition(":")[0]].note
    return f"{name} ({note})" if note else name


def _curves(metrics: Document) -> Iterator[Table]:
    for name, metric in metrics.items():
        if curve := metric.get("curve"):
            rows = [
                [f"{radius:g}", number(value), number(error, 2)]
                for radius, value, error in zip(
                    curve["radii"], curve["values"], curve["stderr"], strict=True
                )
            ]
            yield Table([curve["over"], "value", "stderr"], rows, _noted(name))


def layer_table(layers: Sequence[Document]) -> Table:
    """The curvature of every layer's diagonal block."""
    rows = [
        [
            layer["name"],
            str(layer["n_parameters"]),
            *(_with_errors(layer["lambda_max"]) if "why" not in layer else ["no time", "–", "–"]),
            *(
                number(layer["trace"][key], digits) if "why" not in layer else "–"
                for key, digits in (("value", 4), ("stderr", 2))
            ),
        ]
        for layer in layers
    ]
    header = ["layer", "parameters", "λ1", "stderr", "residual", "trace", "stderr"]
    return Table(header, rows)


def _crossed(pair: Document) -> str:
    """The downward-biased partner of an eigenvalue, with its error."""
    found = pair.get("cross_fit")
    if found is None:
        return "–"
    if found["value"] is None:
        return "no time"
    error = "" if found["stderr"] is None else f" ± {number(found['stderr'], 2)}"
    return f"{number(found['value'])}{error}"


def _interval(low: float | None, high: float | None) -> str:
    return f"[{number(low)}, {number(high)}]"


def _errors(trace: Document) -> str:
    """Both errors of a trace: of the probes, and over the examples."""
    probes, examples = trace["stderr"], trace["sampling_stderr"]
    if examples is None:
        return number(probes, 2)
    return f"{number(probes, 2)} (examples {number(examples, 2)})"


def cross_check_parts(check: Document) -> Iterator[Table | str]:
    """Our eigenvalues beside PyHessian's."""
    pyhessian = check["pyhessian"]
    if pyhessian is None:
        yield check["note"]
        return
    rows = [
        [
            f"λ{index}",
            *(number(pair["value"], 6) for pair in pairs),
            *(number(pair["residual"], 2) for pair in pairs),
            right,
        ]
        for index, (*pairs, right) in enumerate(
            zip(check["ours"], pyhessian, check["right"], strict=True), start=1
        )
    ]
    header = ["cross-check", "ours", "pyhessian", "residual", "residual", "right by the residual"]
    yield Table(header, rows)
    yield (f"largest relative difference {number(check['largest_difference'], 2)}; {check['note']}")


def rescale_check_parts(check: Document) -> Iterator[Table | str]:
    """Ratio of each metric after to before, of the two factors that which moved it farther."""
    if "why" in check:
        yield f"rescale check: {check['why']}"
        return
    tried = check["transformations"]
    rows = [
        [text, number(found["value"])]
        + [number(extreme(one["changes"], text)) for one in tried.values()]
        for text, found in check["metrics"].items()
    ]
    moved = [[change["output_change"] for change in one["changes"]] for one in tried.values()]
    done = [[change["done"] for change in one["changes"]] for one in tried.values()]
    rows.append(["outputs moved", "", *(number(max(m, default=None), 2) for m in moved)])
    rows.append(["places", "", *(str(len(p[0])) if p else "not found" for p in done)])
    header = [f"same function, a = {check['factor']:g}, 1/a", "value", *(f"× {n}" for n in tried)]
    yield Table(header, rows)
    yield from check["says"]


def _with_errors(pair: Document) -> list[str]:
    return [
        number(pair["value"]),
        number(pair["stderr"], 2),
        number(pair["residual"], 2),
    ]
