"""The verdicts in full sentences, one paragraph for each pair of groups."""

from collections.abc import Iterator, Sequence
from typing import Any

from ssgd_analysis.comparison.lines import rows_by_pair
from ssgd_analysis.comparison.rule import FLATTER, INCOMPARABLE, SAME, SHARPER, UNDECIDED
from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.settings.comparison import VerdictRule

Row = dict[str, Any]


def verdict_text(
    tests: Sequence[Row], overall: Sequence[Row], outcomes: Sequence[Row], rule: VerdictRule
) -> str:
    """The long form of the answer: for each pair a line of sentences.

    Args:
        tests: of flatness metrics.
        overall: verdicts, one a pair.
        outcomes: tests of accuracy and the like.
        rule: by which flatness was judged.
    """
    return "\n".join(
        " ".join(_paragraph(*one, rule)) for one in rows_by_pair(tests, overall, outcomes)
    )


def _paragraph(
    pair: tuple[str, str],
    tests: Sequence[Row],
    overall: Sequence[Row],
    outcomes: Sequence[Row],
    rule: VerdictRule,
) -> Iterator[str]:
    counted = [test for test in tests if test["counts"]]
    for one in overall:
        yield _verdict(one, counted, rule)
        if one["verdict"] in (FLATTER, SHARPER):
            yield from _others(one, counted)
    yield from _uncounted(tests)
    yield from _outcomes(pair[0], outcomes)


def _verdict(one: Row, counted: Sequence[Row], rule: VerdictRule) -> str:
    group, baseline, verdict = one["group"], one["baseline"], one["verdict"]
    if verdict in (FLATTER, SHARPER):
        shown = [_effect(test) for test in counted if test["verdict"] == verdict]
        return f"{group} is {verdict} than {baseline}: {_joined(shown)}."
    if verdict == SAME:
        names = _joined([_label(test) for test in counted])
        return (
            f"There is no difference in flatness between {group} and {baseline}: {names}"
            f" {'is' if len(counted) == 1 else 'are'} shown to differ by less than"
            f" {rule.margin:.0%}."
        )
    if verdict == INCOMPARABLE:
        return f"{group} and {baseline} are not comparable: {one['why']}."
    start = f"Whether {group} is flatter than {baseline} is undecided"
    unclear = [test for test in counted if test["verdict"] == UNDECIDED]
    if {FLATTER, SHARPER} <= {t["verdict"] for t in counted} or not any(
        test["n"] > 1 and test["p_holm"] is not None for test in unclear
    ):
        return f"{start}: {one['why'].partition(';')[0]}."
    count = "more than 1000" if one["seeds_needed"] is None else f"about {one['seeds_needed']}"
    return (
        f"{start}: {_joined([_effect(test) for test in unclear])}. With {rule.power:.0%} power,"
        f" {count} seeds of each are needed to find a difference of {2 * rule.margin:.0%}, or to"
        " show that there is none."
    )


def _others(one: Row, counted: Sequence[Row]) -> Iterator[str]:
    """The metrics that count and do not say what the verdict says."""
    for verdict, words in ((SAME, "shows no difference"), (UNDECIDED, "leaves it undecided")):
        names = [_label(test) for test in counted if test["verdict"] == verdict]
        if names:
            words = words if len(names) == 1 else words.replace("ves", "ve").replace("ows", "ow")
            yield f"{capital(_joined(names))} {words}."


def _uncounted(tests: Sequence[Row]) -> Iterator[str]:
    """What the metrics that do not count say, grouped by verdict and reason."""
    said: dict[tuple[str, str], list[str]] = {}
    for test in tests:
        if test["excluded_why"] and test["verdict"] in (FLATTER, SHARPER):
            key = test["verdict"], test["excluded_why"]
            said.setdefault(key, []).append(_label(test))
    for (verdict, why), names in said.items():
        one = len(names) == 1
        yield (
            f"{capital(_joined(names))} {'says' if one else 'say'} {verdict}, but"
            f" {'does' if one else 'do'} not count ({why})."
        )


def _effect(test: Row) -> str:
    """As in: expected rise is 17% lower (95% interval -31% to -3%, p = 0.03)."""
    label, relative = _label(test), test["relative"]
    if relative is None or not test["difference"]:
        return f"{label} differs by {test['difference']:.3g} ({_numbers(test)})"
    way = "lower" if test["difference"] < 0 else "higher"
    return f"{label} is {abs(relative):.1%} {way} ({_numbers(test)})"


def _numbers(test: Row) -> str:
    p = "no p" if test["p_holm"] is None else f"p = {test['p_holm']:.2g}"
    if not test["ci95"]:
        return p
    relative = test.get("relative") is not None and test["difference"]
    size = test["difference"] / test["relative"] if relative else 1.0
    low, high = (f"{end / size:+.1%}" if relative else f"{end:+.3g}" for end in test["ci95"])
    return f"95% interval {low} to {high}, {p}"


def _outcomes(group: str, outcomes: Sequence[Row]) -> Iterator[str]:
    """What is shown of accuracy and the like, and in one sentence what is not."""
    for row in outcomes:
        if row["verdict"] in ("higher", "lower"):
            size = f"{abs(row['difference']):.3g} ({_numbers(row)})"
            yield f"{capital(_label(row))} is {row['verdict']} for {group}, by {size}."
    for verdict in ("not shown to differ", "not measured"):
        names = [_label(row) for row in outcomes if row["verdict"] == verdict]
        if names:
            yield f"{capital(_joined(names))} {'is' if len(names) == 1 else 'are'} {verdict}."


def _label(row: Row) -> str:
    name, colon, settings = row["metric"].partition(":")
    return NAMES.get(name, name) + colon + settings


def _joined(parts: Sequence[str]) -> str:
    """As in: a, b and c."""
    *first, last = parts or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last


def capital(text: str) -> str:
    """With a capital letter at the start."""
    return text[0].upper() + text[1:] if text[0].isascii() else text  # λ stays small
