"""One verdict out of all metrics of a group and its baseline."""

from collections.abc import Sequence

from ssgd_analysis.comparison.rule import (
    FLATTER,
    INCOMPARABLE,
    SAME,
    SHARPER,
    UNDECIDED,
    VERDICTS,
    Case,
    Finding,
)


def overall_verdict(
    cases: Sequence[Case], findings: Sequence[Finding], *, incomparable_why: str = ""
) -> tuple[str, str, int | None]:
    """One group's verdict against its baseline, from all its metrics.

    Args:
        cases: of this group and baseline.
        findings: of these cases.
        incomparable_why: why no metric can compare the two.

    Returns:
        Verdict, reason, and the seeds that are needed where it is undecided (``None``: more than
        1000, or more seeds would not decide it).
    """
    if incomparable_why:
        return INCOMPARABLE, incomparable_why, None
    counted = [(c.metric, f) for c, f in zip(cases, findings, strict=True) if f.counts]
    note = _uncounted_note(cases, findings)
    if not counted:
        return INCOMPARABLE, f"none of the metrics counts: {_exclusions(cases)}", None
    said = {
        verdict: [metric for metric, found in counted if found.verdict == verdict]
        for verdict in VERDICTS
    }
    if said[FLATTER] and said[SHARPER]:
        both = f"{_list(said[FLATTER])} says flatter, {_list(said[SHARPER])} sharper"
        return UNDECIDED, f"the metrics that count disagree: {both}{note}", None
    for verdict in (FLATTER, SHARPER):
        if said[verdict]:
            rest = [metric for metric, found in counted if found.verdict != verdict]
            opposed = f", but not by {_list(rest)}" if rest else ""
            return verdict, f"by {_list(said[verdict])}{opposed}{note}", None
    if len(said[SAME]) == len(counted):
        return SAME, f"within the margin by {_list(said[SAME])}{note}", None
    lacking = "; ".join(sorted({f.why for _, f in counted if f.verdict == INCOMPARABLE}))
    if not said[UNDECIDED]:
        return (UNDECIDED if said[SAME] else INCOMPARABLE), lacking + note, None
    open_ones = [found for _, found in counted if found.verdict == UNDECIDED]
    why, needed = _open(said[UNDECIDED], open_ones)
    return UNDECIDED, why + (f"; {lacking}" if lacking else "") + note, needed


def _open(metrics: Sequence[str], findings: Sequence[Finding]) -> tuple[str, int | None]:
    """Why the metrics decide nothing, and the seeds that it takes."""
    if all(found.n < 2 for found in findings):
        return findings[0].why, findings[0].seeds_needed
    if all(found.p_holm is None for found in findings):
        return findings[0].why, None
    counts = [found.seeds_needed for found in findings]
    most = None if None in counts else max(count for count in counts if count is not None)
    number = "more than 1000" if most is None else f"about {most}"
    return f"by {_list(metrics)}: {number} seeds are needed", most


def _exclusions(cases: Sequence[Case]) -> str:
    """Each reason why metrics do not count, with the metrics."""
    reasons: dict[str, list[str]] = {}
    for case in cases:
        reasons.setdefault(case.excluded_why, []).append(case.metric)
    return "; ".join(f"{_list(metrics)} ({why})" for why, metrics in reasons.items())


def _uncounted_note(cases: Sequence[Case], findings: Sequence[Finding]) -> str:
    """What the metrics that do not count say, grouped by the reason."""
    reasons: dict[str, list[str]] = {}
    for case, found in zip(cases, findings, strict=True):
        if case.excluded_why and found.verdict in (FLATTER, SHARPER):
            entry = f"{case.metric} ({found.verdict})"
            reasons.setdefault(case.excluded_why, []).append(entry)
    return "".join(
        f"; {_list(entries)} {'is' if len(entries) == 1 else 'are'} not counted: {reason}"
        for reason, entries in reasons.items()
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
