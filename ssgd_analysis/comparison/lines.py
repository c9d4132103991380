"""The table of the answer: one line for each rival and setting, a word for each question."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ssgd_analysis.comparison.rule import INCOMPARABLE, SAME
from ssgd_analysis.metric_names import NAMES

Rows = Sequence[dict[str, Any]]

UNMEASURED = "not measured"
ACCURACY = "test_accuracy"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A group beside its baseline, in one setting.

    Args:
        subject: the group, without the setting that it shares with its baseline.
        over: the baseline, without it.
        setting: what both share and other groups do not, such as ``batch size 32``; may be empty.
        flatness: ``flatter``, ``sharper``, ``same``, ``undecided``, ``losses differ``,
            ``not comparable``, or ``not measured``.
        accuracy: ``higher``, ``lower``, ``not shown to differ`` or ``not measured``.
        group: the full name.
        baseline: the full name.
        detail: what a reader of the word may want to know, in a few words.
        metric: the first metric that says the verdict, else the first that counts, else the first;
            empty: none was measured.
        difference: group minus baseline in this metric.
        relative: the same as a fraction of the baseline's mean.
        ci95: interval of the difference.
    """

    subject: str
    over: str
    setting: str
    flatness: str
    accuracy: str
    group: str
    baseline: str
    detail: str = ""
    metric: str = ""
    difference: float | None = None
    relative: float | None = None
    ci95: tuple[float, float] | None = None

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "rival": f"{self.subject} vs {self.over}",
            "setting": self.setting,
            "flatness": self.flatness,
            "accuracy": self.accuracy,
            "difference": self.difference,
            "ci95": self.ci95,
            "metric": self.metric,
            "relative": self.relative,
            "group": self.group,
            "baseline": self.baseline,
        }


def lines_of(tests: Rows, overall: Rows, outcomes: Rows) -> list[Line]:
    """One line a pair of groups: all settings of a rival together, SGD first.

    Args:
        tests: of flatness metrics.
        overall: verdicts, one a pair.
        outcomes: tests of accuracy and the like.
    """
    lines = [_line(*one) for one in rows_by_pair(tests, overall, outcomes)]
    rivals = list(dict.fromkeys((line.subject, line.over) for line in lines))
    rivals.sort(key=lambda names: not any(map(_is_sgd, names)))
    # where the baseline is SGD all rivals are alike, and their order stays
    return sorted(
        lines,
        key=lambda line: (rivals.index((line.subject, line.over)), _natural(line.setting)),
    )


def rows_by_pair(
    tests: Rows, overall: Rows, outcomes: Rows
) -> Iterator[tuple[tuple[str, str], Rows, Rows, Rows]]:
    """Each pair (group, baseline) with its tests, its overall verdict and its outcomes."""
    kinds = tests, overall, outcomes
    pairs = dict.fromkeys((r["group"], r["baseline"]) for r in [*overall, *tests, *outcomes])
    for pair in pairs:
        own = [[row for row in rows if (row["group"], row["baseline"]) == pair] for rows in kinds]
        yield pair, own[0], own[1], own[2]


def names_of(group: str, baseline: str) -> tuple[str, str, str]:
    """Both names without the settings that they share, and these settings in words.

    Example:
        >>> names_of("s-sgd batch_size=32", "sgd batch_size=32")
        ('s-sgd', 'sgd', 'batch size 32')
        >>> names_of("S-SGD, batch 32", "SGD, batch 32")
        ('S-SGD', 'SGD', 'batch 32')
        >>> names_of("s-sgd epochs=10", "sgd epochs=20")
        ('s-sgd epochs=10', 'sgd epochs=20', '')
    """
    group, baseline = (" ".join(name.split()) for name in (group, baseline))
    (a, comma, one), (b, _, other) = (name.rpartition(", ") for name in (group, baseline))
    if comma and a and b and one == other:
        return a, b, one
    theirs = baseline.split(" ")
    shared = [word for word in group.split(" ")[1:] if "=" in word and word in theirs[1:]]
    a, b = (" ".join(w for w in name.split(" ") if w not in shared) for name in (group, baseline))
    return a, b, ", ".join(map(_setting_words, shared))


def _setting_words(text: str) -> str:
    name, _, value = text.partition("=")
    return f"{name.replace('_', ' ')} {value}" if re.fullmatch(r"\w+", name) else text


def _natural(text: str) -> list[tuple[float, str]]:
    """Orders batch size 32 before batch size 128."""
    words = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(float(word), "") if word[0].isdigit() else (math.inf, word) for word in words]


def _is_sgd(name: str) -> bool:
    return name.lower().split(" ")[0] == "sgd"


def _line(pair: tuple[str, str], tests: Rows, overall: Rows, outcomes: Rows) -> Line:
    subject, over, setting = names_of(*pair)
    verdict = overall[0] if overall else None
    shown = _shown(tests, verdict)
    return Line(
        subject=subject,
        over=over,
        setting=setting,
        flatness=_word(verdict),
        accuracy=next((o["verdict"] for o in outcomes if o["metric"] == ACCURACY), UNMEASURED),
        group=pair[0],
        baseline=pair[1],
        detail=_detail(verdict, tests, shown) if verdict else "",
        metric=shown["metric"] if shown else "",
        difference=shown["difference"] if shown else None,
        relative=shown["relative"] if shown else None,
        ci95=shown["ci95"] if shown else None,
    )


def _shown(tests: Rows, verdict: dict[str, Any] | None) -> dict[str, Any] | None:
    """The test whose numbers stand beside the word."""
    by = verdict["by"] if verdict else []
    choices = [
        [test for test in tests if test["metric"] in by],
        [test for test in tests if test["counts"]],
        [test for test in tests if not test["excluded_why"]],
        tests,
    ]
    return next((found[0] for found in choices if found), None)


def _word(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return UNMEASURED
    if verdict["verdict"] == INCOMPARABLE and verdict["obstacle"] == "losses":
        return "losses differ"
    return "same" if verdict["verdict"] == SAME else str(verdict["verdict"])


def _detail(verdict: dict[str, Any], tests: Rows, shown: dict[str, Any] | None) -> str:
    """A few words about a verdict: the effect, the seeds it takes, or the obstacle."""
    word = _word(verdict)
    if word in ("flatter", "sharper") and shown and shown["relative"] is not None:
        name = shown["metric"].partition(":")[0]
        return f"{NAMES.get(name, name)} {shown['relative']:+.0%}, {shown['n']} seeds"
    if word == "undecided":
        return _open_detail(verdict, [test for test in tests if test["counts"]])
    if word == "losses differ":
        a, b = verdict["train_loss"]
        same = f"{a:.3g}" == f"{b:.3g}"
        return "losses differ in pairs" if same else f"train losses {a:.3g} and {b:.3g}"
    return {
        "problem": "different problems",
        "network": "different networks",
        "unknown losses": "train loss unknown",
        "nothing counts": "no metric counts",
    }.get(verdict["obstacle"], "")


def _open_detail(verdict: dict[str, Any], counted: Rows) -> str:
    said = {test["verdict"] for test in counted}
    if {"flatter", "sharper"} <= said:
        return "the metrics disagree"
    if all(test["n"] < 2 for test in counted):
        return "one seed"
    if verdict["seeds_needed"] is not None:
        return f"about {verdict['seeds_needed']} seeds needed"
    planned = any(t["p_holm"] is not None for t in counted if t["verdict"] == "undecided")
    return "more than 1000 seeds needed" if planned else ""
