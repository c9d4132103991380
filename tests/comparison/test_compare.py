"""Grouping, pairing, verdicts: on runs made by hand and metrics that are planted."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from ssgd_analysis.code_hash import code_hash
from ssgd_analysis.comparison import (
    Measurements,
    MeasurementSettings,
    compare,
    find_runs,
    group_runs,
    measure_run,
)
from ssgd_analysis.comparison.groups import _names
from ssgd_analysis.comparison.metric_kinds import check_metric
from ssgd_analysis.comparison.pairs import recorded_loss
from ssgd_analysis.errors import InputError
from ssgd_analysis.report.tables import pair_tables
from ssgd_analysis.runs import Run, TrainConfig


def measured(run, metric, *, step=None, target=None, **settings):
    """One metric of a run."""
    made = MeasurementSettings(**settings)
    return measure_run(run, [metric], made, step=step, target=target)[metric]


@pytest.fixture
def make(tmp_path):
    """Write a finished run with a given curve of train losses; step = 10 × epoch."""

    def build(method, seed, losses, accuracy=0.9, **fields):
        parts = {"data": "digits", "model": "mlp", **fields}
        config = TrainConfig(method=method, seed=seed, **parts)
        name = "-".join(map(str, (method, seed, *fields.values())))
        run = Run(tmp_path / "runs" / name)
        run.begin(config)
        history = [
            {"epoch": i, "step": 10 * i, "train_loss": loss, "test_accuracy": accuracy}
            for i, loss in enumerate(losses, start=1)
        ]
        (run.folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
        for record in history[:-1]:
            run.save_checkpoint(record["step"], {"w": torch.zeros(1)})
        save_file({"w": torch.zeros(1)}, run.final)
        return run

    return build


class Planted:
    """A source whose values, reasons and train losses are functions."""

    def __init__(self, value, why=lambda run, metric: "", train_loss=recorded_loss):
        self.value, self.why, self.loss = value, why, train_loss

    def __call__(self, run, metric, step=None, target=None):
        return self.value(run, metric, step)

    def train_loss(self, run, step=None):
        return self.loss(run, step)


def planted(values, **reasons):
    """A source that reads (method, seed, step) from a table; the history for the rest."""

    def value(run, metric, step):
        if metric != "lambda_max":
            return measured(run, metric, step=step)
        config = run.config()
        return values[(config.method, config.seed, step)]

    return Planted(value, **reasons)


def finished(tmp_path):
    return find_runs([tmp_path / "runs"])[0]


SHARP = {("sgd", s, None): 10 + 0.1 * s for s in range(5)}


def verdict(tmp_path, values, **options):
    groups = group_runs(finished(tmp_path))
    found = compare(groups, source=planted(values), metrics=["lambda_max"], **options)
    (test,) = found.tests
    return test


@pytest.mark.parametrize(
    ("shift", "word"), [(-2.0, "flatter"), (2.0, "sharper"), (None, "no difference")]
)
def test_verdicts_follow_planted_differences(tmp_path, make, shift, word):
    values = dict(SHARP)
    for seed in range(5):
        make("sgd", seed, [1.0, 0.5])
        make("s-sgd", seed, [1.0, 0.5])
        noise = (-1) ** seed * 0.2
        values["s-sgd", seed, None] = (
            SHARP["sgd", seed, None] + (shift or 0) + noise / (10 if shift else 1)
        )
    test = verdict(tmp_path, values)
    assert test["verdict"] == word
    assert test["n"] == 5
    assert test["paired"]
    assert (test["p_holm"] < 0.05) == (word != "no difference")


def test_different_train_losses_are_not_comparable(tmp_path, make):
    values = dict(SHARP)
    for seed in range(3):
        make("sgd", seed, [1.0, 0.5])
        make("s-sgd", seed, [1.0, 0.8])
        values["s-sgd", seed, None] = 1.0 + 0.01 * seed
    test = verdict(tmp_path, values)
    assert test["verdict"] == "not comparable"
    assert test["p_holm"] is None
    assert "train losses 0.8 and 0.5 differ by 38%" in test["why"]
    assert verdict(tmp_path, values, loss_tolerance=0.5)["verdict"] == "flatter"


@pytest.mark.parametrize(
    ("options", "fields", "saved", "ways"),
    [
        ({}, {}, True, ["--match-loss", "--match-by temperature"]),
        ({}, {}, False, ["--match-by temperature"]),
        ({"match_loss": True}, {}, True, ["--match-by temperature"]),
        ({"match_by": "temperature"}, {}, True, []),
        ({}, {"loss": "mse"}, True, ["--match-loss"]),
        ({"match_loss": True}, {"loss": "mse"}, True, []),
        (
            {"settings": MeasurementSettings(normalize_logits=True)},
            {},
            True,
            ["--match-loss"],
        ),
    ],
)
def test_only_ways_that_are_possible_are_advised(tmp_path, make, options, fields, saved, ways):
    for seed in range(2):
        make("sgd", seed, [0.55, 0.5] if saved else [0.5], **fields)
        make("s-sgd", seed, [1.0], **fields)
    source = Planted(lambda run, metric, step: 1.0 + 0.1 * run.config().seed)
    groups = group_runs(finished(tmp_path))
    # at no temperature is the train loss as asked for: the losses stay as they are
    found = compare(groups, source=source, metrics=["expected"], **options)
    advised = [
        way for way in ("--match-loss", "--match-by temperature") if way in str(found.advice)
    ]
    if options.get("match_by") != "temperature":
        assert found.table[0]["flatness"] == "losses differ"
        assert "0.5" in found.answer
    assert advised == ways
    assert "--match" not in str(found.tests)


def test_match_loss_takes_the_better_fit_back(tmp_path, make):
    values = dict(SHARP)
    for seed in range(3):
        make("sgd", seed, [1.0, 0.81, 0.6, 0.3])
        make("s-sgd", seed, [1.0, 0.9, 0.8])
        values["sgd", seed, 20] = 5.0 + 0.1 * seed
        values["s-sgd", seed, None] = 7.0 + 0.1 * seed + 0.01 * seed**2
    test = verdict(tmp_path, values, match_loss=True)
    assert test["steps"] == [[None, 20]] * 3
    assert test["train_loss"] == pytest.approx([0.8, 0.81])
    assert test["verdict"] == "sharper"
    assert test["difference"] == pytest.approx(2.0, abs=0.1)


def test_match_loss_that_finds_nothing_near_says_so(tmp_path, make):
    values = dict(SHARP)
    for seed in range(2):
        make("sgd", seed, [0.3, 0.2])
        make("s-sgd", seed, [1.0, 0.9])
        values["sgd", seed, 10] = values["s-sgd", seed, None] = 1.0
    assert verdict(tmp_path, values, match_loss=True)["verdict"] == "not comparable"


def test_no_common_seed_is_welch(tmp_path, make):
    values = {("sgd", 0, None): 5.0, ("sgd", 1, None): 5.1}
    for seed in range(2):
        make("sgd", seed, [0.5])
        make("s-sgd", seed + 7, [0.5])
        values["s-sgd", seed + 7, None] = 2.0 + 0.1 * seed
    test = verdict(tmp_path, values)
    assert not test["paired"]
    assert test["verdict"] == "flatter"


def test_groups_are_named_by_what_tells_them_apart(tmp_path, make):
    for seed in (0, 1):
        make("sgd", seed, [0.5])
        make("sgd", seed, [0.5], batch_size=32)
        make("s-sgd", seed, [0.5], batch_size=32)
    groups = {group.name: group for group in group_runs(finished(tmp_path))}
    assert set(groups) == {"sgd batch_size=128", "sgd batch_size=32", "s-sgd batch_size=32"}
    assert list(groups["s-sgd batch_size=32"].runs) == [0, 1]


def test_names_show_another_problem_under_a_label_too(tmp_path, make):
    make("sgd", 0, [0.5], label="A", lr=0.2)
    make("sgd", 1, [0.5], label="B", lr=0.3, label_noise=0.1)
    groups = group_runs(finished(tmp_path))
    assert {group.name for group in groups} == {"A label_noise=0.0", "B label_noise=0.1"}


def test_names_leave_out_folders_that_tell_nothing():
    def config(model):
        return TrainConfig(method="sgd", data="digits", model=model)

    short = _names([config("/some/where/net.py:one"), config("/some/where/net.py:two")])
    assert short == ["sgd model=net.py:one", "sgd model=net.py:two"]
    long = _names([config("/some/where/net.py:one"), config("/else/where/net.py:one")])
    assert long == ["sgd model=some/where/net.py:one", "sgd model=else/where/net.py:one"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"data": "two_moons"}, "data (two_moons, digits)"),
        ({"model": "cnn", "loss": "mse"}, "model (cnn, mlp), loss (mse, cross_entropy)"),
        ({"label_noise": 0.2}, "label_noise (0.2, 0.0)"),
        ({"val": 0.1}, "val (0.1, 0.0)"),
    ],
)
@pytest.mark.parametrize("match_loss", [False, True])
def test_other_problems_are_not_comparable(tmp_path, make, other, words, match_loss):
    values = dict(SHARP)
    for seed in range(3):
        make("sgd", seed, [1.0, 0.5])
        make("s-sgd", seed, [1.0, 0.5], **other)
        values["s-sgd", seed, None] = 1.0 + 0.01 * seed
        values["sgd", seed, 20] = values["sgd", seed, None]
    test = verdict(tmp_path, values, match_loss=match_loss)
    assert test["verdict"] == "not comparable"
    assert test["p_holm"] is None
    assert f"differ in {words}:" in test["why"]
    for name, value in other.items():
        assert f"{name}={value}" in test["group"]
        assert f"{name}=" in test["baseline"]


def test_the_baseline_shares_the_settings(tmp_path, make):
    for seed in (0, 1):
        for method in ("sgd", "s-sgd"):
            for batch in (32, 64):
                make(method, seed, [0.5], batch_size=batch)
    groups = group_runs(finished(tmp_path))
    found = compare(groups, source=Planted(lambda *_: 1.0), metrics=["lambda_max"])
    pairs = {(t["group"], t["baseline"]) for t in found.tests}
    assert {
        ("s-sgd batch_size=32", "sgd batch_size=32"),
        ("s-sgd batch_size=64", "sgd batch_size=64"),
    } <= pairs


def test_holm_counts_all_metrics_and_groups(tmp_path, make):
    for seed in range(4):
        for method in ("sgd", "s-sgd", "sam"):
            make(method, seed, [0.5])
    table = {"sgd": 0.0, "s-sgd": 1.0, "sam": 2.0}

    def measure(run, metric, step):
        config = run.config()
        return table[config.method] + 0.1 * config.seed * (1 + table[config.method])

    metrics = ["lambda_max", "trace"]
    groups = group_runs(finished(tmp_path))
    tests = compare(groups, source=Planted(measure), metrics=metrics).tests
    assert len(tests) == 4
    smallest = min(tests, key=lambda t: t["p"])
    assert smallest["p_holm"] == pytest.approx(4 * smallest["p"])


def test_accuracy_is_an_outcome_not_a_flatness_test(tmp_path, make):
    for seed in range(3):
        make("sgd", seed, [0.5], accuracy=0.90 + 0.001 * seed)
        make("s-sgd", seed, [0.5], accuracy=0.95 + 0.0011 * seed)
    groups = group_runs(finished(tmp_path))
    found = compare(groups, source=planted({}), metrics=["test_accuracy"])
    assert found.tests == []
    assert found.outcomes[0]["verdict"] == "higher"
    assert found.answer == "Is s-sgd more accurate than sgd? Yes."
    assert found.added == ()  # a source measures only what was asked for


def test_unfinished_runs_are_told_apart_and_twins_refused(tmp_path, make):
    make("sgd", 0, [0.5])
    open_run = make("sgd", 1, [0.5])
    open_run.final.unlink()
    done, unfinished = find_runs([tmp_path / "runs"])
    assert [r.folder.name for r in unfinished] == ["sgd-1"]
    assert len(done) == 1
    twin = Run(tmp_path / "runs" / "twin")
    twin.begin(done[0].config())
    save_file({"w": torch.zeros(1)}, twin.final)
    with pytest.raises(InputError, match="same run twice"):
        group_runs(find_runs([tmp_path / "runs"])[0])


def test_links_to_runs_are_followed_once(tmp_path, make):
    for seed in range(3):
        make("sgd", seed, [0.5])
    linked = tmp_path / "linked" / "deep"
    linked.mkdir(parents=True)
    for name in ("sgd-0", "sgd-1"):
        (linked / name).symlink_to(tmp_path / "runs" / name)
    (linked / "again").symlink_to(tmp_path / "runs" / "sgd-1")
    (linked / "circle").symlink_to(linked.parent)
    (linked / "gone").symlink_to(tmp_path / "nowhere")
    done, _ = find_runs([tmp_path / "linked"])
    assert [run.folder for run in done] == [tmp_path / "runs" / f"sgd-{seed}" for seed in (0, 1)]


def test_measurements_are_kept_and_follow_the_weights(tmp_path, monkeypatch):
    from ssgd_analysis.comparison import measurements
    from ssgd_analysis.training import train

    config = TrainConfig(method="sgd", data="two_moons", model="mlp", epochs=1, batch_size=100)
    run = Run(tmp_path / "r")
    train(config, run.folder)
    first = measured(run, "sam")

    def counting(*arguments, **options):
        raise AssertionError("measured again")

    monkeypatch.setattr(measurements, "load_checkpoint", counting)
    assert measured(run, "sam") == first
    weights = {"w": torch.ones(1)}
    save_file(weights, run.final)
    with pytest.raises(AssertionError, match="measured again"):
        measured(run, "sam")


CODE = """
import torch
from torch import nn
from beside import width

def make(): return nn.Linear(2, width)
def load(): return (torch.zeros(20, 2), torch.arange(20) % 2), (torch.zeros(4, 2), torch.zeros(4).long())
def loss(outputs, targets): return nn.functional.cross_entropy(outputs, targets)
"""  # noqa: E501


@pytest.mark.parametrize("changed", ["model.py", "data.py", "loss.py", "beside.py"])
def test_measurements_follow_the_code_of_model_data_and_loss(tmp_path, monkeypatch, changed):
    from ssgd_analysis.comparison import measurements
    from ssgd_analysis.training import train

    for name in ("model.py", "data.py", "loss.py"):
        (tmp_path / name).write_text(CODE)
    (tmp_path / "beside.py").write_text("width = 2\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    config = TrainConfig(
        method="sgd", epochs=1, batch_size=10, model=f"{tmp_path}/model.py:make",
        data=f"{tmp_path}/data.py:load", loss=f"{tmp_path}/loss.py:loss",
    )  # fmt: skip
    run = Run(tmp_path / "r")
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    train(config, run.folder)
    first = measured(run, "sam")

    def counting(*arguments, **options):
        raise AssertionError("measured again")

    monkeypatch.setattr(measurements, "load_checkpoint", counting)
    assert measured(run, "sam") == first
    with (tmp_path / changed).open("a") as file:
        file.write("# another\n")
    with pytest.raises(AssertionError, match="measured again"):
        measured(run, "sam")


def test_the_code_behind_a_name():
    assert code_hash("digits") == "digits"
    assert code_hash("math:fsum").startswith("math:fsum ")
    one, other = code_hash("json.decoder:JSONDecoder"), code_hash("json.encoder:JSONEncoder")
    assert one.split()[1] != other.split()[1]
    with pytest.raises(InputError, match="there is no file"):
        code_hash("/nowhere/net.py:make")


def test_opposite_loss_gaps_do_not_cancel(tmp_path, make):
    for seed, (a, b) in enumerate([(0.2, 0.6), (0.6, 0.2), (0.4, 0.4)]):
        make("sgd", seed, [a])
        make("s-sgd", seed, [b])
    values = {(m, s, None): 1.0 + s for m in ("sgd", "s-sgd") for s in range(3)}
    assert verdict(tmp_path, values)["verdict"] == "not comparable"


def test_one_common_seed_of_several_is_welch_over_all(tmp_path, make):
    values = {}
    for seed in (0, 1, 2):
        make("sgd", seed, [0.5])
        make("s-sgd", seed + 2, [0.5])
        values["sgd", seed, None] = 5 + 0.1 * seed
        values["s-sgd", seed + 2, None] = 2 + 0.1 * seed
    test = verdict(tmp_path, values)
    assert (test["n"], test["paired"], test["verdict"]) == (3, False, "flatter")


def test_two_groups_of_one_method_are_compared(tmp_path, make):
    for seed in (0, 1):
        make("sgd", seed, [0.5], lr=0.1)
        make("sgd", seed, [0.5], lr=0.2)
    groups = group_runs(finished(tmp_path))
    source = Planted(lambda run, *_: run.config().seed * 1.0)
    tests = compare(groups, source=source, metrics=["lambda_max"]).tests
    assert [(t["group"], t["baseline"]) for t in tests] == [("sgd lr=0.2", "sgd lr=0.1")]


def test_outcomes_are_corrected_metric_by_metric(tmp_path, make):
    for seed in range(4):
        make("sgd", seed, [0.5 + 0.01 * seed], accuracy=0.90 + 0.003 * seed)
        make("s-sgd", seed, [0.51 + 0.012 * seed], accuracy=0.91 + 0.004 * seed)
    groups = group_runs(finished(tmp_path))
    metrics = ["test_accuracy", "train_loss"]
    outcomes = compare(groups, source=planted({}), metrics=metrics).outcomes
    assert [o["p_holm"] for o in outcomes] == [o["p"] for o in outcomes]  # one test of each


def test_the_percentage_shown_is_of_the_losses_shown(tmp_path, make):
    """0.2838 against 0.3119 is 9%, whatever single pairs are apart."""
    values = {}
    pairs = [(0.2338, 0.3719), (0.3338, 0.2519)]
    for seed, losses in enumerate(pairs):
        for method, loss in zip(("sgd", "s-sgd"), losses, strict=True):
            make(method, seed, [loss])
            values[method, seed, None] = 1.0 + seed
    test = verdict(tmp_path, values)
    b, a = (sum(side) / 2 for side in zip(*pairs, strict=True))
    assert test["train_loss"] == pytest.approx([a, b])
    assert test["loss_gap"] == pytest.approx((0.3119 - 0.2838) / 0.3119, rel=1e-3)
    assert test["pair_loss_gap"] == pytest.approx((0.1381 / 0.3719 + 0.0819 / 0.3338) / 2)
    assert test["verdict"] == "not comparable"
    assert "though the mean train losses 0.3119 and 0.2838 differ by 9%" in test["why"]
    (title,) = pair_tables([test])
    assert "0.3119 and 0.2838 (9.0% apart)" in title


def lacking(values, *missing, reason="the layer has no weights"):
    """A source that refuses a metric of some (method, seed), and says why."""

    def gone(run):
        return (run.config().method, run.config().seed) in missing

    def value(run, metric, step):
        return None if metric == "lambda_max" and gone(run) else planted(values)(run, metric, step)

    return Planted(
        value, why=lambda run, metric: reason if metric == "lambda_max" and gone(run) else ""
    )


@pytest.mark.parametrize("shift", [0, 7])
def test_a_run_that_lacks_a_metric_is_left_out_and_named(tmp_path, make, shift):
    values = dict(SHARP)
    for seed in range(4):
        make("sgd", seed, [0.5])
        make("s-sgd", seed + shift, [0.5])
        values["s-sgd", seed + shift, None] = 5 + 0.11 * seed
    source = lacking(values, ("s-sgd", 1 + shift))
    groups = group_runs(finished(tmp_path))
    found = compare(groups, source=source, metrics=["lambda_max", "train_loss"])
    name = f"s-sgd-{1 + shift}"
    assert found.missing == [
        {
            "group": "s-sgd", "run": str(tmp_path / "runs" / name), "metric": "lambda_max",
            "why": "the layer has no weights",
        }
    ]  # fmt: skip
    assert {g["name"]: g["metrics"]["lambda_max"]["n"] for g in found.groups} == {
        "sgd": 4, "s-sgd": 3,
    }  # fmt: skip
    (test,) = found.tests
    assert (test["verdict"], test["n"], test["paired"]) == ("flatter", 3, not shift)
    kept = [5 + 0.11 * seed for seed in (0, 2, 3)]
    base = [SHARP["sgd", seed, None] for seed in ((0, 2, 3) if not shift else range(4))]
    assert test["difference"] == pytest.approx(sum(kept) / 3 - sum(base) / len(base))
    assert f"in some runs: {name} (the layer has no weights)" in test["why"]
    assert [o["n"] for o in found.outcomes] == [4]


def test_a_group_without_a_metric_is_not_comparable_with_the_reason(tmp_path, make):
    values = dict(SHARP)
    for seed in range(3):
        make("sgd", seed, [0.5])
        make("s-sgd", seed, [0.5])
    source = lacking(values, *(("s-sgd", seed) for seed in range(3)))
    groups = group_runs(finished(tmp_path))
    (test,) = compare(groups, source=source, metrics=["lambda_max"]).tests
    assert (test["verdict"], test["difference"]) == ("not comparable", None)
    assert "s-sgd-0, s-sgd-1, s-sgd-2 (the layer has no weights)" in test["why"]
    everyone = [(m, seed) for m in ("sgd", "s-sgd") for seed in range(3)]
    source = lacking(values, *everyone)
    with pytest.raises(InputError, match="the layer has no weights"):
        compare(groups, source=source, metrics=["lambda_max"])


def test_a_run_without_a_train_loss_is_not_comparable(tmp_path, make):
    for seed in range(2):
        make("sgd", seed, [0.5])
        make("s-sgd", seed, [0.5])
    groups = group_runs(finished(tmp_path))
    source = Planted(
        lambda run, *_: 1.0 + run.config().seed,
        train_loss=lambda run, step: float("nan") if run.config().seed else 0.5,
    )
    (test,) = compare(groups, source=source, metrics=["lambda_max"]).tests
    assert test["verdict"] == "not comparable"
    assert "train loss of some runs is not known" in test["why"]


def test_measurements_go_on_where_one_run_refuses(tmp_path):
    from ssgd_analysis.training import train

    for seed in range(2):
        config = TrainConfig(
            method="sgd", data="two_moons", model="mlp", epochs=1, batch_size=100, seed=seed
        )
        train(config, tmp_path / f"r{seed}")
    bad = Run(tmp_path / "r1")
    bad.final.write_bytes(b"\0" * 50)
    measure = Measurements(["sam", "train_loss"], MeasurementSettings())
    assert measure(Run(tmp_path / "r0"), "sam") is not None
    assert measure(bad, "sam") is None
    assert "final.safetensors" in measure.why(bad, "sam")
    assert measure(bad, "train_loss") is not None
    assert measure.why(bad, "train_loss") == ""


def test_folded_networks_are_not_comparable(tmp_path, make):
    values = dict(SHARP)
    for seed in range(3):
        make("sgd", seed, [0.5])
        folded = make("s-sgd", seed, [0.5])
        save_file({"w": torch.zeros(1), "norm.running_mean": torch.ones(2)}, folded.final)
        values["s-sgd", seed, None] = 1.0 + 0.01 * seed
    test = verdict(tmp_path, values)
    assert test["verdict"] == "not comparable"
    assert "BatchNorm layers (norm), which only one side has" in test["why"]


def test_a_search_that_stops_by_itself_is_no_comparison():
    with pytest.raises(InputError, match="as many for every run"):
        check_metric("adaptive_worst:starts=0")
    check_metric("adaptive_worst:starts=8")
