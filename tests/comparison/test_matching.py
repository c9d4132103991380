"""Train losses made equal, logits normalised, and copies that are rescaled but the same."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from ssgd_analysis.comparison import (
    Measurements,
    MeasurementSettings,
    compare,
    find_runs,
    group_runs,
    measure_run,
)
from ssgd_analysis.comparison import measurements as module
from ssgd_analysis.comparison.matching import Normalized, Scaled, temperature
from ssgd_analysis.comparison.pairs import pairs_of
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.report.tables import narrow
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.runs.checkpoint import load_checkpoint
from ssgd_analysis.training import train


def measured(run, metric, *, step=None, target=None, **settings):
    """One metric of a run."""
    made = MeasurementSettings(**settings)
    return measure_run(run, [metric], made, step=step, target=target)[metric]


@pytest.fixture(params=["not sure enough", "too sure"])
def problem(request):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    batches = [
        (torch.randn(n, 3, dtype=torch.float64), torch.randint(4, (n,))) for n in (20, 20, 7)
    ]
    # three quarters of the targets as the model has them: a loss below log 4
    with torch.no_grad():
        batches = [
            (x, torch.where(torch.rand(len(x)) < 0.75, model(x).argmax(1), y)) for x, y in batches
        ]
        model[2].weight.mul_(4)
        model[2].weight.mul_(3 if request.param == "too sure" else 1)
    return Problem(model, cross_entropy, batches)


@pytest.mark.parametrize("share", [1e-4, 0.5, 0.99])
def test_temperature_brings_the_loss_to_the_target(problem, share):
    loss = problem.mean_loss()
    assert loss < math.log(4)
    target = loss + share * (math.log(4) - loss)
    found = temperature(problem, target)
    scaled = Problem(Scaled(problem.model, found), problem.loss, problem.batches)
    # the mean over batches and that over all examples differ by rounding
    assert scaled.mean_loss() == pytest.approx(target, rel=1e-12)
    # the nearest: between it and 1 the loss is below
    for between in np.geomspace(1, found, 30)[1:-1]:
        inner = Problem(Scaled(problem.model, float(between)), problem.loss, problem.batches)
        assert inner.mean_loss() < target
    if share == 1e-4:  # a small difference takes a small change
        assert abs(found - 1) < 0.01


def test_temperature_goes_where_the_loss_rises(problem, request):
    sure = "too sure" in request.node.name
    assert (temperature(problem, problem.mean_loss() + 0.01) < 1) == sure


def test_temperature_only_ever_raises_the_loss(problem, request):
    assert temperature(problem, problem.mean_loss() / 2) == 1.0
    if "not sure" in request.node.name:
        assert temperature(problem, math.log(4)) is None
    else:
        assert temperature(problem, 10.0) < 1
    assert temperature(problem, 1e9) is None


def test_normalised_logits_have_no_scale_and_no_shift(problem):
    x = problem.batches[0][0]
    outputs = Normalized(problem.model)(x)
    raw = problem.model(x)
    assert torch.allclose(
        outputs, (raw - raw.mean(1, keepdim=True)) / raw.std(1, correction=0)[:, None]
    )
    with torch.no_grad():
        problem.model[2].weight.mul_(7)
        problem.model[2].bias.mul_(7).add_(3)
    assert torch.allclose(Normalized(problem.model)(x), outputs, rtol=1e-12)
    assert torch.equal(outputs.argmax(1), raw.argmax(1))


# --- on runs ---

METRICS = ("expected:draws=4", "adaptive_worst:steps=3", "lambda_max", "sam")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of one problem: three epochs of SGD, one of them with a smaller learning rate."""
    folder = tmp_path_factory.mktemp("matching")
    for seed in range(3):
        for lr in (0.05, 0.02):
            config = TrainConfig(
                method="sgd", data="two_moons", model="mlp", epochs=3, batch_size=100, lr=lr,
                seed=seed, save_every=1,
            )  # fmt: skip
            train(config, folder / f"sgd-{lr}-{seed}")
    return folder


def groups_of(folder):
    return group_runs(find_runs([folder])[0])


@pytest.mark.slow
def test_temperature_measures_at_the_other_sides_loss(trained):
    groups = groups_of(trained)
    measure = Measurements(METRICS, MeasurementSettings())
    (pair,) = pairs_of(groups, None, "temperature")
    assert pair.paired
    assert pair.loss_gap == 0.0
    for a, b in zip(*pair.sides, strict=True):
        losses = [p.run.history()[-1]["train_loss"] for p in (a, b)]
        better = (a, b)[int(np.argmin(losses))]
        assert better.target == max(losses)
        assert {a.target, b.target} == {None, max(losses)}
        assert a.step is b.step is None
        # measured by hand: the same checkpoint, its last layer divided by the temperature
        problem = load_checkpoint(str(better.run.folder)).problem("train")
        degrees = temperature(problem, max(losses))
        scaled = Problem(Scaled(problem.model, degrees), problem.loss, problem.batches)
        assert scaled.mean_loss() == pytest.approx(max(losses), rel=1e-5)  # float32
        with torch.no_grad():
            last = problem.model[-1]
            last.weight.div_(degrees)
            last.bias.div_(degrees)
        # noise relative to each weight shrinks along, so that scaling the last layer is the same
        by_hand = module.METRICS["expected"](
            Problem(problem.model, problem.loss, problem.batches),
            seed=better.run.config().seed,
            draws=4,
        )
        found = measure(better.run, "expected:draws=4", None, better.target)
        assert found == pytest.approx(by_hand.value, rel=1e-2)  # float32 differences of losses
        assert found != pytest.approx(measure(better.run, "expected:draws=4"), rel=0.02)
    result = compare(
        groups, source=measure, metrics=METRICS, match_loss=True, match_by="temperature"
    )
    assert result.matched_by == "temperature"
    test = result.tests[0]
    assert test["train_loss"][0] == test["train_loss"][1]
    assert test["final_train_loss"][0] != test["final_train_loss"][1]
    assert test["steps"] == [[None, None]] * 3


def test_loss_beyond_any_temperature_is_not_comparable(trained, tmp_path):
    for folder in trained.iterdir():
        shutil.copytree(folder, tmp_path / folder.name)
        history = tmp_path / folder.name / "history.jsonl"
        records = [json.loads(line) for line in history.read_text().splitlines()]
        records[-1]["train_loss"] = 0.1 if "0.05" in folder.name else 1e9
        history.write_text("".join(json.dumps(r) + "\n" for r in records))
    metrics = ["expected:draws=4"]
    measure = Measurements(metrics, MeasurementSettings())
    result = compare(
        groups_of(tmp_path),
        source=measure,
        metrics=metrics,
        match_loss=True,
        match_by="temperature",
    )
    assert result.tests[0]["verdict"] == "not comparable"
    assert "no temperature brings both to the train loss 1e+09" in result.tests[0]["why"]
    assert result.overall[0]["verdict"] == "not comparable"


def test_temperature_of_groups_without_common_seeds(trained, tmp_path):
    for folder in trained.iterdir():
        config = Run(folder).config()
        if (config.lr, config.seed) in {(0.05, 0), (0.05, 1), (0.02, 2)}:
            shutil.copytree(folder, tmp_path / folder.name)
    config = TrainConfig(method="sgd", data="two_moons", model="mlp", epochs=3, batch_size=100,
                         lr=0.02, seed=7, save_every=1)  # fmt: skip
    train(config, tmp_path / "sgd-0.02-7")
    (pair,) = pairs_of(groups_of(tmp_path), None, "temperature")
    finals = [p.run.history()[-1]["train_loss"] for side in pair.sides for p in side]
    assert not pair.paired
    assert pair.losses == pytest.approx([max(finals)] * 2)
    targets = [p.target for side in pair.sides for p in side]
    assert sorted(map(str, targets)) == sorted(["None"] + [str(max(finals))] * 3)
    (pair,) = pairs_of(groups_of(tmp_path), None, "checkpoints")
    moved = [[p.step is not None for p in side] for side in pair.sides]
    better = int(np.argmin(pair.final_losses))
    assert any(moved[better])
    assert not any(moved[1 - better])


def test_other_losses_have_no_logits_to_scale(tmp_path):
    config = TrainConfig(method="sgd", data="two_moons", model="mlp", epochs=1, batch_size=100,
                         loss="mse")  # fmt: skip
    run = Run(tmp_path / "r")
    train(config, run.folder)
    with pytest.raises(InputError, match="scaling logits to a train loss needs the loss cross_ent"):
        measured(run, "sam", target=1.0)
    with pytest.raises(InputError, match="normalising logits needs the loss cross_entropy"):
        measured(run, "sam", normalize_logits=True)


def test_normalised_metrics_do_not_see_the_scale_of_the_logits(tmp_path):
    config = TrainConfig(method="sgd", data="digits", model="mlp", epochs=2, batch_size=100)
    run, copy = Run(tmp_path / "run"), Run(tmp_path / "copy")
    train(config, run.folder)
    shutil.copytree(run.folder, copy.folder)
    weights = load_file(run.final)
    last = max(name.rpartition(".")[0] for name in weights)
    scaled = {k: (8 * w if k.startswith(last) else w) for k, w in weights.items()}
    save_file(scaled, copy.final)
    metric = "expected:draws=8,sigma=0.3"
    a, b = (measured(r, metric, normalize_logits=True) for r in (run, copy))
    # the noise is relative to each weight, so that it scales along; float32 differences of losses
    assert a == pytest.approx(b, rel=1e-3)
    assert a > 1e-3
    raw = [measured(r, metric) for r in (run, copy)]
    assert abs(raw[0] - raw[1]) > 0.5 * abs(raw[0])
    loss = Measurements([metric], MeasurementSettings(normalize_logits=True)).train_loss
    assert loss(run, None) == pytest.approx(loss(copy, None), rel=1e-5)
    by_hand = load_checkpoint(str(run.folder))
    with torch.no_grad():
        logits = by_hand.model(by_hand.data.train.inputs)
    unit = (logits - logits.mean(1, keepdim=True)) / logits.std(1, correction=0, keepdim=True)
    expected = cross_entropy(unit, by_hand.data.train.targets)
    assert loss(run, None) == pytest.approx(float(expected), rel=1e-5)  # float32


def test_normalised_logits_of_two_classes_are_refused(trained):
    with pytest.raises(InputError, match="three classes or more"):
        measured(Run(trained / "sgd-0.05-0"), "sam", normalize_logits=True)


def test_metrics_of_a_run_share_one_bench(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "sgd-0.05-1", tmp_path / "r")
    run = Run(tmp_path / "r")
    shutil.rmtree(run.folder / "measurements", ignore_errors=True)
    opened = []
    monkeypatch.setattr(
        module, "load_checkpoint", lambda *a, **k: opened.append(1) or load_checkpoint(*a, **k)
    )
    asked = ("expected:draws=4", "expected:draws=4,sigma=0.2", "symmetric_gap:draws=4", "sam")
    told = []
    measure = Measurements(asked, MeasurementSettings(), lambda run, metric: told.append(metric))
    values = [measure(run, metric) for metric in asked]
    assert len(opened) == 1
    assert told == list(asked)
    assert len(set(values)) == 4
    # alone: the same numbers, and nothing is measured again
    for metric, value in zip(asked, values, strict=True):
        assert measured(run, metric) == value
    assert len(opened) == 1
    names = sorted(p.name for p in (run.folder / "measurements").iterdir())
    assert (
        "expected_draws=4,sigma=0.2-train-all-seed0-step-00000015.json" in names or len(names) == 4
    )
    shutil.rmtree(run.folder / "measurements")
    assert [measured(run, metric) for metric in asked] == values
    with pytest.raises(InputError, match="unknown setting 'sigmaa'"):
        measured(run, "expected:sigmaa=1")


# --- rescaled copies ---


@pytest.fixture(scope="module")
def rescaled(trained, tmp_path_factory):
    """Runs and copies of the same function: each layer but the last times 5, the last undone."""
    folder = tmp_path_factory.mktemp("rescaled")
    for seed in range(3):
        run = Run(trained / f"sgd-0.05-{seed}")
        shutil.copytree(run.folder, folder / "plain" / f"{seed}")
        copy = folder / "copies" / f"{seed}"
        shutil.copytree(run.folder, copy)
        for path in (folder / "plain" / f"{seed}", copy):
            shutil.rmtree(path / "measurements", ignore_errors=True)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "label": "rescaled"}))
        weights = load_file(run.final)
        first, second, last = sorted({name.rpartition(".")[0] for name in weights})
        weights[f"{first}.weight"] *= 5
        weights[f"{first}.bias"] *= 5
        weights[f"{second}.bias"] *= 25
        weights[f"{second}.weight"] *= 5
        weights[f"{last}.weight"] /= 25
        save_file(weights, copy / "final.safetensors")
    return folder


RAW = ("lambda_max", "trace", "sam")
INVARIANT = ("expected", "adaptive_worst", "fisher_rao", "w_h_w", "trace_weighted")


def test_a_rescaled_copy_is_no_different(rescaled):
    metrics = [*RAW, *INVARIANT]
    result = compare(
        groups_of(rescaled),
        source=Measurements(metrics, MeasurementSettings()),
        metrics=metrics,
        baseline="sgd",
    )
    tests = {test["metric"]: test for test in result.tests}
    for metric in INVARIANT:
        assert tests[metric]["verdict"] == "no difference", tests[metric]
        assert tests[metric]["counts"]
        # float32: the same function to rounding
        assert abs(tests[metric]["relative"]) < 1e-3
    (overall,) = result.overall
    assert overall["verdict"] == "no difference"
    assert overall["counted"] == list(INVARIANT)
    moved = [metric for metric in RAW if abs(tests[metric]["relative"]) > 0.5]
    assert moved == list(RAW)
    assert not any(tests[metric]["counts"] for metric in RAW)
    for metric in RAW:
        if tests[metric]["verdict"] in ("flatter", "sharper"):
            assert f"{metric} ({tests[metric]['verdict']})" in overall["why"]
    assert " not counted: " in overall["why"]
    assert overall["why"].endswith(
        ": rescaling the weights changes it although the function stays the same"
    )
    assert any(tests[metric]["verdict"] in ("flatter", "sharper") for metric in RAW)


def test_one_checkpoint_and_its_rescaled_copy_are_no_different(rescaled):
    runs = find_runs([rescaled / side / "0" for side in ("plain", "copies")])[0]
    metrics = ["lambda_max", *INVARIANT]
    result = compare(
        group_runs(runs),
        source=Measurements(metrics, MeasurementSettings()),
        metrics=metrics,
        baseline="sgd",
    )
    assert result.overall[0]["verdict"] == "no difference"
    assert result.tests[0]["verdict"] == "undecided"  # λ_max, one seed


def test_values_that_are_not_finite_are_not_judged(trained):
    class Infinite(Measurements):
        def __call__(self, run, metric, step=None, target=None):
            return math.inf if run.config().seed == 1 else run.config().lr

    source = Infinite(["expected"], MeasurementSettings())
    groups = groups_of(trained)
    result = compare(groups, source=source, metrics=["expected"], loss_tolerance=1.0)
    assert "not finite in some runs" in result.tests[0]["why"]
    assert result.overall[0]["verdict"] == "undecided"


def test_raw_metrics_alone_decide_nothing(rescaled):
    result = compare(
        groups_of(rescaled),
        source=Measurements(RAW, MeasurementSettings()),
        metrics=RAW,
        baseline="sgd",
    )
    (overall,) = result.overall
    assert overall["verdict"] == "not comparable"
    assert "none of the metrics counts" in overall["why"]


def test_a_wide_table_is_turned():
    header, row = ["group", *"abcde"], ["x", *["123456789012345678"] * 5]
    turned = narrow(header, [row])
    assert turned == (["group", "x"], [[name, row[1]] for name in "abcde"])
    assert narrow(header, [row], 200) == (header, [row])
    assert narrow(*turned) == turned


def test_the_command_says_why(rescaled, run, tmp_path):
    call = ["compare", rescaled, "--baseline", "sgd"]
    for metric in ("lambda_max", "adaptive_worst", "symmetric_gap:draws=4"):
        call += ["--metric", metric]
    outcome = run(*call, "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("Is rescaled flatter than sgd? No, equally flat.\n\n")
    assert "no difference in flatness between rescaled and sgd" in " ".join(outcome.out.split())
    assert "rescalable" in outcome.out
    assert "The rule was fixed before the numbers were known." in outcome.out
    assert "(0.0% apart)" in outcome.out
    assert max(map(len, outcome.out.splitlines()[1:-10])) <= 100  # paths come last
    header = (tmp_path / "tests.csv").read_text().splitlines()[0].split(",")
    assert {"p", "p_holm", "test", "n", "bootstrap_low", "margin", "circular", "why"} <= set(header)
    answer = run(*call, "--margin", "0.2", "--json").json
    assert answer["rule"]["margin"] == 0.2
    assert "20%" in answer["rule"]["text"]
    assert run(*call, "--margin", "0").status == 2
    clash = run(*call, "--normalize-logits", "--match-by", "temperature")
    assert "choose one of them" in clash.error
