"""The answer in one line, its table and its sentences: out of planted numbers."""

import itertools
import random

import pytest

from ssgd_analysis.comparison.answer import LIMIT, NO_RIVAL, NOTHING, answer
from ssgd_analysis.comparison.lines import Line, lines_of, names_of
from ssgd_analysis.comparison.sentences import verdict_text
from ssgd_analysis.settings.comparison import VerdictRule

WORDS = ("flatter", "sharper", "same", "undecided", "losses differ", "not comparable")


def line(subject="s-sgd", over="sgd", setting="", flatness="flatter", accuracy="not measured",
         detail=""):  # fmt: skip
    return Line(
        subject=subject, over=over, setting=setting, flatness=flatness, accuracy=accuracy,
        group="", baseline="", detail=detail,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], NO_RIVAL),
        ([line()], "Is s-sgd flatter than sgd? Yes."),
        ([line(flatness="sharper")], "Is s-sgd flatter than sgd? No, sharper."),
        ([line(flatness="same")], "Is s-sgd flatter than sgd? No, equally flat."),
        (
            [line(flatness="undecided", detail="about 12 seeds needed")],
            "Is s-sgd flatter than sgd? Undecided (about 12 seeds needed).",
        ),
        (
            [line(accuracy="lower", detail="expected rise -17%, 5 seeds")],
            "Is s-sgd flatter than sgd? Yes (expected rise -17%, 5 seeds)."
            " Its test accuracy is lower.",
        ),
        (
            [
                line(setting="batch size 32", flatness="losses differ",
                     detail="train losses 0.28 and 0.31"),
                line(setting="batch size 256"),
                line(over="sam", setting="batch size 32", flatness="sharper"),
                line(over="sam", setting="batch size 256", flatness="sharper"),
            ],
            "Is s-sgd flatter than sgd? Yes at batch size 256; not answered at batch size 32"
            " (train losses 0.28 and 0.31). Than sam? No, sharper in both settings.",
        ),
        (
            [line(), line("sam", flatness="same"), line("ema", flatness="undecided")],
            "Flatter than sgd? s-sgd: yes. sam: no, equally flat. ema: undecided.",
        ),
        (
            [line(setting=f"batch size {2**i}", flatness=WORDS[i > 2]) for i in range(5)],
            "Is s-sgd flatter than sgd? Yes at batch size 1, 2 and 4; no, sharper at batch size 8"
            " and 16.",
        ),
        (
            [line(flatness="not measured", accuracy="higher")],
            "Is s-sgd more accurate than sgd? Yes.",
        ),
        ([line(flatness="not measured")], NOTHING),
    ],
)  # fmt: skip
def test_the_answer_is_composed_from_the_lines(lines, text):
    assert answer(lines) == text


def test_what_does_not_fit_is_counted():
    rivals = [line(f"method-{i:02d}", flatness="undecided", detail="one seed") for i in range(30)]
    text = answer(rivals)
    assert text.startswith("Flatter than sgd? method-00: undecided. method-01: ")
    assert text.endswith(" more: see the table.")
    left_out = int(text.rpartition("And ")[2].split()[0])
    assert text.count(": undecided.") + left_out == 30
    assert len(text) > LIMIT - 25  # as many as fit


def test_long_names_lose_their_middle_before_clauses_are_left_out():
    long = "s-sgd noise_scale=0.30000000000000004 noise_law=binary lr=0.1 " * 3
    text = answer([line(f"{long}end"), line("sam")])
    assert len(text) <= LIMIT
    assert "s-sgd" in text
    assert "end: yes. sam: yes." in text


def test_no_answer_is_longer_than_the_limit_or_a_line():
    draw = random.Random(0)
    letters = "abcdefgh-_=. λ×"

    def name(longest):
        return "".join(draw.choices(letters, k=draw.randint(1, longest)))

    for _ in range(400):
        longest = draw.choice([3, 12, 60, 400])
        subjects = [name(longest) for _ in range(draw.randint(1, 12))]
        overs = [name(longest) for _ in range(draw.randint(1, 4))]
        settings = [name(longest) for _ in range(draw.randint(1, 9))]
        found = [
            line(a, b, s, draw.choice(WORDS), "higher", name(40))
            for a, b, s in itertools.product(subjects, overs, settings)
        ]
        text = answer(found)
        assert 10 < len(text) <= LIMIT, text
        assert "\n" not in text


@pytest.mark.parametrize(
    ("group", "baseline", "names"),
    [
        ("s-sgd", "sgd", ("s-sgd", "sgd", "")),
        ("s-sgd batch_size=32", "sgd batch_size=32", ("s-sgd", "sgd", "batch size 32")),
        ("s-sgd lr=0.1 epochs=10", "sgd lr=0.1 epochs=20",
         ("s-sgd epochs=10", "sgd epochs=20", "lr 0.1")),
        ("S-SGD, small batch", "SGD 2×, small batch", ("S-SGD", "SGD 2×", "small batch")),
        ("two\nlines", "sgd", ("two lines", "sgd", "")),
    ],
)  # fmt: skip
def test_what_both_names_share_is_the_setting(group, baseline, names):
    assert names_of(group, baseline) == names


# --- from the rows of a comparison ---


def overall(verdict, group="s-sgd", baseline="sgd", by=(), obstacle="", seeds=None, why="reason"):
    return {
        "group": group, "baseline": baseline, "verdict": verdict, "why": why, "by": list(by),
        "counted": [], "seeds_needed": seeds, "obstacle": obstacle, "train_loss": (0.28, 0.312),
    }  # fmt: skip


def metric_row(metric="expected", verdict="flatter", group="s-sgd", baseline="sgd", **changes):
    return {
        "metric": metric, "group": group, "baseline": baseline, "verdict": verdict,
        "difference": -0.17, "relative": -0.17, "ci95": (-0.3, -0.04), "n": 5, "p_holm": 0.03,
        "counts": True, "excluded_why": "", **changes,
    }  # fmt: skip


RAW = {"counts": False, "excluded_why": "rescaling changes it"}


def outcome(verdict, group="s-sgd", baseline="sgd", metric="test_accuracy"):
    return {
        "metric": metric, "group": group, "baseline": baseline, "verdict": verdict,
        "difference": -0.01, "ci95": (-0.02, -0.001), "p_holm": 0.04,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "tests", "word", "detail"),
    [
        (overall("flatter", by=["expected"]), [metric_row()], "flatter",
         "expected rise -17%, 5 seeds"),
        (overall("no difference"), [metric_row(verdict="no difference")], "same", ""),
        (overall("undecided", seeds=12), [metric_row(verdict="undecided")], "undecided",
         "about 12 seeds needed"),
        (overall("undecided", seeds=None), [metric_row(verdict="undecided")], "undecided",
         "more than 1000 seeds needed"),
        (overall("undecided", seeds=2), [metric_row(verdict="undecided", n=1)], "undecided",
         "one seed"),
        (overall("undecided"), [metric_row(), metric_row("trace", "sharper")], "undecided",
         "the metrics disagree"),
        (overall("not comparable", obstacle="losses"), [metric_row(counts=False)], "losses differ",
         "train losses 0.28 and 0.312"),
        (overall("not comparable", obstacle="problem"), [metric_row(counts=False)],
         "not comparable", "different problems"),
        (overall("not comparable", obstacle="nothing counts"), [metric_row(**RAW)],
         "not comparable", "no metric counts"),
    ],
)  # fmt: skip
def test_a_line_says_the_verdict_in_a_word(verdict, tests, word, detail):
    (found,) = lines_of(tests, [verdict], [outcome("lower")])
    assert (found.flatness, found.accuracy, found.detail) == (word, "lower", detail)
    row = found.row()
    assert (row["rival"], row["setting"]) == ("s-sgd vs sgd", "")
    assert (row["difference"], row["ci95"]) == (-0.17, (-0.3, -0.04))


def test_the_effect_is_of_the_metric_that_decides():
    tests = [
        metric_row("lambda_max", "sharper", difference=9.0, **RAW),
        metric_row("expected", "undecided", difference=1.0),
        metric_row("adaptive_worst", "flatter", difference=-2.0),
    ]
    (decided,) = lines_of(tests, [overall("flatter", by=["adaptive_worst"])], [])
    assert (decided.metric, decided.difference) == ("adaptive_worst", -2.0)
    (unclear,) = lines_of(tests[:2], [overall("undecided", seeds=9)], [])
    assert (unclear.metric, unclear.accuracy) == ("expected", "not measured")


def test_rivals_stand_together_sgd_first_and_settings_in_order():
    pairs = [
        (f"S-SGD batch_size={size}", f"{rival} batch_size={size}")
        for size in (128, 32)
        for rival in ("SAM", "SGD")
    ]
    verdicts = [overall("flatter", a, b) for a, b in pairs]
    rows = [found.row() for found in lines_of([], verdicts, [])]
    assert [(row["rival"], row["setting"]) for row in rows] == [
        ("S-SGD vs SGD", "batch size 32"), ("S-SGD vs SGD", "batch size 128"),
        ("S-SGD vs SAM", "batch size 32"), ("S-SGD vs SAM", "batch size 128"),
    ]  # fmt: skip


def test_without_verdicts_the_line_is_of_accuracy():
    (found,) = lines_of([], [], [outcome("higher")])
    assert (found.flatness, found.accuracy) == ("not measured", "higher")


@pytest.mark.parametrize(
    ("verdict", "tests", "words"),
    [
        (
            overall("flatter", by=["expected"]),
            [metric_row(), metric_row("adaptive_worst", "undecided"),
             metric_row("lambda_max", "sharper", **RAW)],
            "s-sgd is flatter than sgd: expected rise is 17.0% lower (95% interval -30.0% to"
            " -4.0%, p = 0.03). Adaptive worst leaves it undecided. λ_max says sharper, but does"
            " not count (rescaling changes it). Test accuracy is lower for s-sgd, by 0.01 (95%"
            " interval -0.02 to -0.001, p = 0.04).",
        ),
        (
            overall("no difference"),
            [metric_row(verdict="no difference"), metric_row("adaptive_worst", "no difference")],
            "There is no difference in flatness between s-sgd and sgd: expected rise and adaptive"
            " worst are shown to differ by less than 10%.",
        ),
        (
            overall("undecided", seeds=12),
            [metric_row(verdict="undecided")],
            "With 80% power, about 12 seeds of each are needed to find a difference of 20%, or to"
            " show that there is none.",
        ),
        (
            overall("undecided", seeds=2, why="one seed gives no interval"),
            [metric_row(verdict="undecided", n=1, p_holm=None)],
            "Whether s-sgd is flatter than sgd is undecided: one seed gives no interval.",
        ),
        (
            overall("not comparable", why="train losses differ"),
            [metric_row(counts=False)],
            "s-sgd and sgd are not comparable: train losses differ.",
        ),
    ],
)  # fmt: skip
def test_the_long_form_is_sentences(verdict, tests, words):
    text = verdict_text(tests, [verdict], [outcome("lower")], VerdictRule())
    assert words in text
    assert text.endswith("p = 0.04).")


def test_what_is_not_shown_is_one_sentence():
    rows = [outcome("not shown to differ"), outcome("not shown to differ", metric="train_loss")]
    text = verdict_text([], [], rows, VerdictRule())
    assert text == "Test accuracy and train loss are not shown to differ."
