"""Tables of a comparison: for the page, for a terminal, for a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.pictures.correlations import correlation_tables
from ssgd_analysis.records import number

TextTable = tuple[list[str], list[list[str]]]  # header and rows


def group_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of groups: mean ± half of the 95% interval."""
    metrics = list(dict.fromkeys(m for group in result["groups"] for m in group["metrics"]))
    rows = []
    for group in result["groups"]:
        cells = []
        for metric in metrics:
            found = group["metrics"][metric]
            half = "" if not found["ci95"] else f" ± {found['ci95'][1] - found['mean']:.2g}"
            cells.append(number(found["mean"]) + half)
        rows.append([group["name"], str(len(group["seeds"])), *cells])
    return ["group", "seeds", *[NAMES.get(metric, metric) for metric in metrics]], rows


def narrow(
    header: list[str], rows: list[list[str]], width: int = 100
) -> tuple[list[str], list[list[str]]]:
    """The table, transposed if it is wider than a page and the transposed one is narrower."""

    def needs(table: list[list[str]]) -> int:
        return sum(max(map(len, column)) + 2 for column in zip(*table, strict=True))

    table = [header, *rows]
    turned = [list(column) for column in zip(*table, strict=True)]
    if needs(table) <= max(width, needs(turned)):
        return header, rows
    return turned[0], turned[1:]


ORDER = ("flatter", "sharper", "no difference", "undecided", "not comparable")


def by_weight(tests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort tests: those that count come first, then by verdict and p."""

    def weight(test: dict[str, Any]) -> tuple[bool, int, float]:
        p = 2.0 if test["p_holm"] is None else test["p_holm"]
        return not test["counts"], ORDER.index(test["verdict"]), p

    return sorted(tests, key=weight)


def counts(test: dict[str, Any]) -> str:
    """Whether a test counts for the overall verdict, in a word or two."""
    if test["circular"]:
        return "circular"
    if test["excluded_why"]:
        return "undirected" if "flatter" in test["excluded_why"] else "rescalable"
    return "yes" if test["counts"] else "–"


def span(ends: Sequence[float] | None) -> str:
    """An interval for people."""
    return "–" if not ends else f"[{ends[0]:.3g}, {ends[1]:.3g}]"


def p_cell(value: float | None) -> str:
    """A p-value for people."""
    return "–" if value is None else f"{value:.2g}"


def relative_text(value: float | None) -> str:
    """A relative difference for people."""
    if value is None:
        return "–"
    return f"{value:+.0%}" if abs(value) >= 1 else f"{value:+.1%}"


def test_rows(tests: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of flatness tests, those that count first."""
    rows = [
        [
            test["group"],
            test["baseline"],
            NAMES.get(test["metric"], test["metric"]),
            number(test["difference"]),
            relative_text(test["relative"]),
            span(test["ci95"]),
            span(test["bootstrap95"]),
            p_cell(test["p"]),
            p_cell(test["p_holm"]),
            relative_text(test["loss_gap"]).lstrip("+"),
            test["verdict"],
            counts(test),
            test["why"]
            + (f"; does not count: {test['excluded_why']}" if test["excluded_why"] else ""),
        ]
        for test in by_weight(tests)
    ]
    return [
        "group", "against", "metric", "difference", "relative", "95% interval", "bootstrap", "p",
        "p (Holm)", "gap of train losses", "verdict", "counts", "why",
    ], rows  # fmt: skip


def pair_tables(
    tests: Sequence[dict[str, Any]],
) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Title → header and rows: one narrow table for each pair of groups."""
    header = ["metric", "difference", "95% interval", "p (Holm)", "verdict", "counts"]
    tables: dict[str, tuple[list[str], list[list[str]]]] = {}
    pairs = dict.fromkeys((test["group"], test["baseline"]) for test in tests)
    sorted_tests = by_weight(tests)
    for test in [t for pair in pairs for t in sorted_tests if (t["group"], t["baseline"]) == pair]:
        a, b = test["train_loss"]
        title = (
            f"{test['group']} vs {test['baseline']}, {test['n']} seeds; train loss {a:.4g}"
            f" and {b:.4g} ({test['loss_gap']:.1%} apart)"
        )
        if tuple(test["final_train_loss"]) != (a, b):
            title += ", matched; at the end {:.4g} and {:.4g}".format(*test["final_train_loss"])
        row = [
            NAMES.get(test["metric"], test["metric"]),
            *effect_cells(test["difference"], test["relative"], test["ci95"]),
            p_cell(test["p_holm"]),
            test["verdict"],
            counts(test),
        ]
        tables.setdefault(title, (header, []))[1].append(row)
    return tables


def outcome_rows(tests: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of accuracy, losses and other outcomes."""
    rows = [
        [
            test["group"],
            test["baseline"],
            NAMES.get(test["metric"], test["metric"]),
            number(test["difference"]),
            span(test["ci95"]),
            p_cell(test["p_holm"]),
            test["verdict"],
        ]
        for test in tests
    ]
    header = ["group", "against", "metric", "difference", "95% interval", "p (Holm)", "verdict"]
    return header, rows


def answer_rows(table: Sequence[dict[str, Any]]) -> TextTable:
    """Header and rows of the table of the answer: a word a question, and one effect.

    Columns that are empty everywhere are left out; a metric that all rows share is in the header.
    """
    metrics = {NAMES.get(row["metric"], row["metric"]) for row in table}
    effect = metrics.pop() if len(metrics) == 1 else ""
    header = ["", "setting", "flatness", "test accuracy", "metric", effect or "difference"]
    header.append("95% interval")
    rows = [
        [
            row["rival"],
            row["setting"],
            row["flatness"],
            "" if row["accuracy"] == "not measured" else row["accuracy"],
            "" if effect else NAMES.get(row["metric"], row["metric"]),
            *effect_cells(row["difference"], row["relative"], row["ci95"]),
        ]
        for row in table
    ]
    kept = [
        index
        for index in range(len(header))
        if index == 0 or any(row[index].strip("–") for row in rows)
    ]
    return [header[i] for i in kept], [[row[i] or "–" for i in kept] for row in rows]


def effect_cells(
    difference: float | None, relative: float | None, ci95: Sequence[float] | None
) -> list[str]:
    """A difference and its interval relative to the baseline's mean, unless that is zero."""
    if relative is None or not difference:
        return [number(difference), span(ci95)]
    size = difference / relative
    ends = [relative_text(end / size) for end in ci95 or ()]
    return [relative_text(relative), f"[{', '.join(ends)}]" if ends else "–"]


def overall_rows(verdicts: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the overall verdicts."""
    rows = [[v["group"], v["baseline"], v["verdict"], v["why"]] for v in verdicts]
    return ["group", "against", "verdict", "why"], rows


def test_csv(tests: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Header and one row a flatness test, all numbers in full."""
    plain = [
        "group", "baseline", "metric", "difference", "relative", "margin", "p", "p_holm",
        "p_equivalence", "test", "paired", "n", "verdict", "counts", "circular", "excluded_why",
        "seeds_needed", "why",
    ]  # fmt: skip
    pairs = {
        "ci95": ("low", "high"),
        "bootstrap95": ("bootstrap_low", "bootstrap_high"),
        "train_loss": ("train_loss", "baseline_train_loss"),
    }
    rows: list[list[object]] = [
        [
            *(test[key] for key in plain),
            *(end for key in pairs for end in test[key] or (None, None)),
        ]
        for test in by_weight(tests)
    ]
    return [*plain, *(name for names in pairs.values() for name in names)], rows


def comparison_tables(result: dict[str, Any]) -> list[tuple[str, TextTable]]:
    """Title and table of the details that a terminal shows below the answer, in order."""
    tables = [("groups", narrow(*group_rows(result))), *pair_tables(result["tests"]).items()]
    if result["outcomes"]:
        tables.append(("outcomes", outcome_rows(result["outcomes"])))
    if "correlations" in result:
        tables += correlation_tables(result["correlations"]).items()
    return tables


def comparison_notes(result: dict[str, Any]) -> list[str]:
    """The paragraphs below the tables; an empty one is a blank line. The verdicts come last."""
    notes = [
        *(f"{one['metric']} is missing in {one['run']}: {one['why']}" for one in result["missing"]),
        *(
            f"{group['name']}: one seed gives no interval; train at least two"
            for group in result["groups"]
            if len(group["seeds"]) < 2
        ),
    ]
    if "correlations" in result:
        notes.insert(0, f"correlations: {result['correlations']['convention']}")
    if result["tests"]:
        notes += [result["rule"]["text"], "", columns_note(result), ""]
    return [*notes, *result["verdict"].splitlines()]


def answer_notes(result: dict[str, Any]) -> list[str]:
    """What belongs right below the answer: metrics that were added, ways to equal train loss."""
    notes = list(result["advice"])
    if result["added"]:
        notes.insert(
            0,
            f"None of the metrics that were asked for counts, so {' and '.join(result['added'])}"
            f" {'was' if len(result['added']) == 1 else 'were'} measured too: rescaling the weights"
            " does not change them.",
        )
    return notes


def columns_note(result: dict[str, Any]) -> str:
    """What the columns mean, as a paragraph."""
    where = {
        None: "at the final weights",
        "checkpoints": "at saved checkpoints of matched train loss",
        "temperature": "at the final weights, with logits scaled to the same train loss",
    }[result["matched_by"]]
    notes = "".join(f" {metric}: {note}." for metric, note in result.get("notes", {}).items())
    return (
        f"Differences are group minus baseline, {where}. Groups are not comparable if their data,"
        " model or loss differ, or if their mean train losses differ by more than"
        f" {result['loss_tolerance']:.0%}. Rescalable metrics do not count, because rescaling the"
        " weights changes them although the function stays the same; nor do circular ones, which a"
        " method was trained on. With fewer than about ten seeds, bootstrap intervals are too"
        f" narrow.{notes}"
    )
