"""One verdict out of all metrics of a group and its baseline."""

from collections.abc import Sequence

from ssgd_analysis.comparison.rule import FLATTER, INCOMPARABLE, SAME, SHARPER, Case, Finding


def overall_verdict(
    cases: Sequence[Case], findings: Sequence[Finding], *, incomparable_why: str = ""
) -> tuple[str, str, int | None]:
    """One group's verdict against its baseline, from all its metrics.

    Args:
        cases: of this group and baseline.
        findings: of these cases.
        incomparable_why: why no metric can compare the two.

    Returns:
        Verdict, reason, and the seeds that are needed where it is undecided.
    """
    if incomparable_why:
        return INCOMPARABLE, incomparable_why, None
    counted = [(c.metric, f) for c, f in zip(cases, findings, strict=True) if f.counts]
    note = _uncounted_note(cases, findings)
    if not counted:
        none = (
            "none of the metrics counts: add one that rescaling does not change, such as expected"
        )
        return INCOMPARABLE, none + note, None
    by_verdict = {
        verdict: [metric for metric, found in counted if found.verdict == verdict]
        for verdict in (FLATTER, SHARPER, SAME, INCOMPARABLE)
    }
    if by_verdict[FLATTER] and by_verdict[SHARPER]:
        both = f"{_list(by_verdict[FLATTER])} says flatter, {_list(by_verdict[SHARPER])} sharper"
        return INCOMPARABLE, f"the metrics that count disagree: {both}{note}", None
    for verdict in (FLATTER, SHARPER):
        if by_verdict[verdict]:
            rest = [metric for metric, found in counted if found.verdict != verdict]
            opposed = f", but not by {_list(rest)}" if rest else ""
            return verdict, f"by {_list(by_verdict[verdict])}{opposed}{note}", None
    if not by_verdict[INCOMPARABLE]:
        return SAME, f"within the margin by {_list(by_verdict[SAME])}{note}", None
    needed = [f.seeds_needed for _, f in counted if f.verdict == INCOMPARABLE]
    reasons = {f.why for _, f in counted if f.verdict == INCOMPARABLE}
    if not all(reason.startswith("undecided") for reason in reasons):
        return INCOMPARABLE, "; ".join(sorted(reasons)) + note, None
    counts = [count for count in needed if count is not None]
    most = max(counts) if len(counts) == len(needed) else None
    count = "more than 1000" if most is None else f"about {most}"
    why = f"undecided by {_list(by_verdict[INCOMPARABLE])}: {count} seeds are needed"
    return INCOMPARABLE, why + note, most


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
