"""The sentence says what the numbers say: planted gains, none, growing ones."""

import dataclasses

import numpy as np
import pytest

from ssgd_analysis.errors import InputError
from ssgd_analysis.studies.load import check_study, load_study
from ssgd_analysis.studies.questions import QUESTIONS

SEEDS = range(10)
BATCHES = (32, 64, 128, 256)


def study(tmp_path, question, arms, settings, **keys):
    lines = [f'question = "{question}"', f"seeds = {list(SEEDS)}", "budget = 2"]
    lines += [f"{key} = {value!r}".replace("'", '"') for key, value in keys.items()]
    lines += ["[train]", 'data = "digits"', 'model = "mlp"']
    lines += [f'[[setting]]\nname = "{name}"\n{text}' for name, text in settings.items()]
    lines += [f'[[arm]]\nlabel = "{label}"\n{text}' for label, text in arms.items()]
    path = tmp_path / "planted.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return load_study(str(path))


THREE = {"S-SGD": 'method = "s-sgd"', "SGD": 'method = "sgd"', "SAM": 'method = "sam"'}
BY_BATCH = {str(size): f"batch_size = {size}" for size in BATCHES}


def planted(means, noise=0.002):
    """(setting, arm) → accuracies by seed: the mean, what all arms of a seed share, own noise.

    The noise has mean zero over the seeds, so that the mean gains are those that are planted.
    """
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.01, len(SEEDS))
    found = {}
    for key, mean in means.items():
        own = rng.normal(0, noise, len(SEEDS))
        found[key] = {"test_accuracy": dict(enumerate(mean + shared + own - own.mean()))}
    return found


def by_batch(gain):
    return planted(
        {(str(b), arm): 0.9 + (gain(b) if arm == "S-SGD" else 0) for b in BATCHES for arm in THREE}
    )


def answer(spec, values, **result):
    return QUESTIONS[spec.question].answer(spec, result, values)


@pytest.mark.parametrize(
    ("gain", "way"),
    [
        (lambda b: 0.01 * np.log2(b / 32), "grows"),
        (lambda b: -0.01 * np.log2(b / 32), "shrinks"),
        (lambda b: 0.02, "is not shown to change"),
    ],
)
def test_trend(tmp_path, gain, way):
    spec = study(tmp_path, "trend", THREE, BY_BATCH, axis="batch_size", against="SGD")
    found = answer(spec, by_batch(gain))
    assert f"over SGD in test accuracy {way} with the batch size" in found.sentence
    slope = next(one for one in found.record["slopes"] if one["rival"] == "SGD")
    assert slope["mean"] == pytest.approx(100 * (gain(256) - gain(32)) / 3, abs=1e-6)
    end = {"grows": "higher", "shrinks": "lower"}.get(way, "higher")
    assert f"At 256 the test accuracy of S-SGD is {end} than that of SGD, SAM" in found.sentence


def test_a_shared_seed_effect_does_not_hide_a_paired_gain(tmp_path):
    """Seeds differ by 1 point, the gain is 0.5: only pairs show it."""
    spec = study(tmp_path, "each", THREE, {"a": "", "b": ""}, against="SGD")
    values = planted({(s, arm): 0.9 + 0.005 * (arm == "S-SGD") for s in "ab" for arm in THREE})
    assert "is shown in 2 of 2 settings" in answer(spec, values).sentence


def test_each(tmp_path):
    gains = {"constant": 0.02, "step": 0.0, "cosine": -0.02}
    spec = study(tmp_path, "each", THREE, {s: f'schedule = "{s}"' for s in gains}, against="SGD")
    values = planted(
        {(s, arm): 0.9 + (g if arm == "S-SGD" else 0) for s, g in gains.items() for arm in THREE}
    )
    sentence = answer(spec, values).sentence
    assert "is shown in 1 of 3 settings (constant) and reversed in cosine" in sentence
    words = "SAM its accuracy is higher in constant, lower in cosine, not shown to differ in step"
    assert words in sentence


def strengths(tmp_path, curve):
    scales = (0.0, 0.1, 0.2, 0.4)
    arms = {f"c={c:g}": f'method = "s-sgd"\nset = {{ noise_scale = {c} }}' for c in scales}
    arms["SGD"] = 'method = "sgd"'
    spec = study(
        tmp_path, "strength", arms, {"": ""}, axis="noise_scale", focus="c=0.1", against="SGD"
    )
    values = planted({("", f"c={c:g}"): curve(c) for c in scales} | {("", "SGD"): 0.9})
    for c in scales:
        values["", f"c={c:g}"]["train_loss"] = dict.fromkeys(SEEDS, 0.5 + c)
    return answer(spec, values)


def test_strength_inside_and_at_the_end(tmp_path):
    inside = strengths(tmp_path, lambda c: 0.9 + 0.03 * (c == 0.2))
    assert "highest at noise scale 0.2" in inside.sentence
    assert "inside the range 0 to 0.4, and higher than at 0 for c=0.2;" in inside.sentence
    assert "train loss goes 0.5 → 0.7 → 0.9" in inside.sentence
    end = strengths(tmp_path, lambda c: 0.9 + 0.1 * c)
    assert "highest at noise scale 0.4" in end.sentence
    assert "at the end of the range" in end.sentence
    down = strengths(tmp_path, lambda c: 0.9 - 0.1 * c)
    assert "highest at noise scale 0 " in down.sentence
    assert "lower for" in down.sentence
    assert "higher than at 0" not in down.sentence


def test_pairs(tmp_path):
    arms = {law: f'method = "s-sgd"\nset = {{ noise_law = "{law}" }}' for law in LAWS}
    spec = study(tmp_path, "pairs", arms, {"": ""})
    same = answer(spec, planted({("", law): 0.9 for law in LAWS}))
    assert "no pair is shown to differ" in same.sentence
    assert same.record["pairs"][0]["omnibus"] > 0.01
    other = answer(spec, planted({("", law): 0.9 + 0.02 * (law == "sphere") for law in LAWS}))
    assert "binary is lower than sphere" in other.sentence
    assert "sphere is higher than uniform" in other.sentence
    assert "no other pair is shown to differ" in other.sentence
    assert other.record["pairs"][0]["omnibus"] < 0.01


LAWS = ("binary", "gaussian", "sphere", "uniform")


@pytest.mark.parametrize(
    ("gain", "way"), [(0.02, "helps"), (-0.02, "hurts"), (0.0, "is not shown to help or hurt")]
)
def test_symmetry(tmp_path, gain, way):
    arms = {"symmetric": 'method = "s-sgd"', "two": 'method = "wni-2"', "one": 'method = "wni"'}
    scales = {f"c = {c}": f"set = {{ noise_scale = {c} }}" for c in (0.1, 0.3)}
    spec = study(tmp_path, "symmetry", arms, scales, against="two")
    assert spec.config(spec.settings[1], spec.arms[2], 0).settings["noise_scale"] == 0.3
    means = {
        (s, arm): 0.9 + gain * (arm == "symmetric") + 0.05 * (arm == "one")
        for s in scales
        for arm in arms
    }
    variance = [
        {
            "weights": "final", "scale": 0.1, "arm": "symmetric", "variance": 1.0, "ratio": 0.25,
            "ratio_error": 0.01, "n": 10, "passes": 2.0,
        }
    ]  # fmt: skip
    found = answer(spec, planted(means, noise=0.004), variance=variance)
    assert f"symmetry {way}:" in found.sentence
    assert "of two, is 0.25 ± 0.01 at c = 0.1" in found.sentence
    one = next(row for row in found.record["pooled"] if row["rival"] == "one")
    assert one["verdict"] == "lower"


@pytest.mark.parametrize(("at_equal_rates", "doubted"), [(0.0, True), (0.02, False)])
def test_a_gain_that_equal_rates_do_not_show_is_doubted(tmp_path, at_equal_rates, doubted):
    arms = {"symmetric": 'method = "s-sgd"', "two": 'method = "wni-2"'}
    spec = study(tmp_path, "symmetry", arms, {"a": "", "b": ""}, against="two")
    gains = {"a": 0.04, "b": -0.01}
    means = {(s, arm): 0.9 + gains[s] * (arm == "symmetric") for s in gains for arm in arms}
    wobble = [0.001, -0.001, 0.002, -0.002]
    tuning = {
        "arms": [
            {
                "setting": setting,
                "arm": arm,
                "trials": [
                    {
                        "values": {"lr": 0.1 * (i + 1)},
                        "val_accuracy": 0.8 + (at_equal_rates + w) * (arm == "symmetric"),
                    }
                    for i, w in enumerate(wobble)
                ],
            }
            for setting in gains
            for arm in arms
        ]
    }
    found = answer(spec, planted(means), tuning=tuning)
    assert "symmetry helps on average:" in found.sentence
    assert "a: +4.00" in found.sentence
    assert "b: -1.00" in found.sentence
    assert found.record["same_trials"]["mean"] == pytest.approx(100 * at_equal_rates)
    assert found.record["same_trials"]["n"] == 4
    assert ("it may come from the values" in found.sentence) == doubted
    tuning["arms"][0]["trials"][0]["values"] = {"lr": 5.0}  # other values: nothing to pair
    assert answer(spec, planted(means), tuning=tuning).record["same_trials"] is None


def test_what_failed_everywhere_is_told_not_dropped(tmp_path):
    spec = study(tmp_path, "each", THREE, {"a": "", "b": ""}, against="SGD")
    values = planted({(s, arm): 0.9 for s in "ab" for arm in THREE if arm != "SGD"})
    assert "no common seed" in answer(spec, values).sentence


@pytest.mark.parametrize("question", ["trend", "each", "pairs", "symmetry"])
def test_an_arm_without_runs_is_said_to_be_no_different_from_none(tmp_path, question):
    spec = study(tmp_path, question, THREE, BY_BATCH, axis="batch_size", against="SGD")
    values = {key: found for key, found in by_batch(lambda b: 0).items() if key[1] != "SAM"}
    found = answer(spec, values)
    for words in ("differ from that of SGD, SAM", "SAM its accuracy is not shown", "differ: SAM"):
        assert words not in found.sentence
    rows = [*found.record.get("gains", ()), *found.record.get("pooled", ())]
    assert all(row["verdict"] == "not measured" for row in rows if row["rival"] == "SAM")
    words = {"trend": "not measured against SAM (no run)", "each": "is not measured (no run)"}
    assert words.get(question, "") in found.sentence


def test_a_question_without_its_axis_is_refused(tmp_path):
    with pytest.raises(InputError, match="axis"):
        study(tmp_path, "trend", THREE, BY_BATCH)
    with pytest.raises(InputError, match="question"):
        study(tmp_path, "why", THREE, BY_BATCH)


@pytest.mark.parametrize(
    ("question", "axis", "tuned", "words"),
    [
        ("trend", "nonsense", "", "of positive numbers: 'nonsense' is not one"),
        ("trend", "schedule", "", "'schedule' is not one"),
        ("trend", "momentum", "", "at least two values: 'momentum' has one"),
        ("trend", "warmup", "", "'warmup' is not one"),  # 0 has no logarithm
        ("strength", "noise_scale", "", "at least two values"),
        ("strength", "noise_scale", "search = { noise_scale = [0.1, 1.0] }", "not tuned"),
    ],
)
def test_an_axis_along_which_nothing_lies_is_refused(tmp_path, question, axis, tuned, words):
    arms = {**THREE, "S-SGD": f'method = "s-sgd"\n{tuned}'}
    settings = {**BY_BATCH, **({"x": "[tuning]"} if tuned else {})}
    with pytest.raises(InputError, match=words):
        study(tmp_path, question, arms, settings, axis=axis, against="SGD")


def test_names_that_would_share_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="'S-SGD' and 's sgd' are both 's-sgd'"):
        study(tmp_path, "each", {**THREE, "s sgd": 'method = "sgd"'}, BY_BATCH)
    with pytest.raises(InputError, match="two settings have the same name"):
        study(tmp_path, "each", THREE, {"Batch 1": "", "batch-1": ""})


def test_the_variance_of_one_run_has_no_error(tmp_path):
    arms = {"symmetric": 'method = "s-sgd"', "two": 'method = "wni-2"'}
    spec = study(tmp_path, "symmetry", arms, {"a": ""}, against="two")
    row = {"weights": "final", "scale": 0.1, "arm": "symmetric", "ratio": 0.25, "ratio_error": None}
    found = answer(spec, planted({("a", arm): 0.9 for arm in arms}), variance=[row])
    assert "of two, is 0.25 at c = 0.1" in found.sentence


def test_the_test_of_pooled_gains_can_reach_the_corrected_level(tmp_path, monkeypatch):
    """Six seeds: an exact p is at least 1/32, which three rivals' correction never lets pass."""
    arms = {"symmetric": 'method = "s-sgd"'} | dict.fromkeys("abc", 'method = "wni"')
    monkeypatch.setattr(__import__("sys").modules[__name__], "SEEDS", range(6))
    spec = study(tmp_path, "symmetry", arms, {"": ""}, against="a")
    means = {("", arm): 0.9 + 0.05 * (arm == "symmetric") for arm in arms}
    assert "symmetry helps:" in answer(spec, planted(means)).sentence


def test_tuning_seeds_are_no_final_seeds(tmp_path):
    spec = study(tmp_path, "each", THREE, {"a": ""})
    tuned = load_study("digits")
    with pytest.raises(InputError, match="for tuning and for the final runs"):
        check_study(dataclasses.replace(tuned, seeds=[1000]))
    check_study(spec)
