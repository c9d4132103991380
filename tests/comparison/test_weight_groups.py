"""Weights that anyone trained: files and models in memory, beside each other and beside runs."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from ssgd_analysis.comparison import MeasurementSettings, compare, weight_groups
from ssgd_analysis.comparison.patterns import group_files, labelled
from ssgd_analysis.comparison.weight_members import loss_name
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import train

NET = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

def load():
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return (x[:16], y[:16]), (x[16:], y[16:])

def weighted(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 3.0]))
"""
QUICK = "expected:draws=2"


def net(seed, width=4):
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(width)
    norm.running_mean.copy_(torch.randn(width))
    return nn.Sequential(nn.Linear(3, width), norm, nn.ReLU(), nn.Linear(width, 2))


def splits():
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return [(x[:16], y[:16])], [(x[16:], y[16:])]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two groups of two files, and the code that they belong to, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    for seed in range(2):
        torch.save(net(seed).state_dict(), tmp_path / f"a-{seed}.pt")
        torch.save({"state_dict": net(seed + 5).state_dict()}, tmp_path / f"b-{seed}.pt")
    return tmp_path


BELONGS = {"model": "net.py:make", "data": "net.py:load"}
FILES = {"A": ["a-0.pt", "a-1.pt"], "B": ["b-0.pt", "b-1.pt"]}


def problems(model, loss=cross_entropy):
    train, test = splits()
    return {"problem": Problem(model, loss, train), "test": Problem(model, loss, test)}


def mean(found, group, metric):
    (one,) = [each for each in found.groups if each["name"] == group]
    return one["metrics"][metric]["mean"]


def test_losses_accuracy_and_norm_of_files_are_measured(folder):
    metrics = ["train_loss", "test_loss", "test_accuracy", "weight_norm", "gradients"]
    found = compare(FILES, **BELONGS, loss="net.py:weighted", metrics=metrics)
    losses, right, norms = [], [], []
    for seed in range(2):
        model = net(seed).eval()
        (x, y), (xt, yt) = splits()[0][0], splits()[1][0]
        weight = torch.tensor([1.0, 3.0])
        losses.append(cross_entropy(model(x), y, weight=weight).item())
        right.append(float((model(xt).argmax(1) == yt).double().mean()))
        norms.append(math.sqrt(sum(p.square().sum().item() for p in model.parameters())))
    assert mean(found, "A", "train_loss") == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert mean(found, "A", "test_accuracy") == pytest.approx(sum(right) / 2)
    assert mean(found, "A", "weight_norm") == pytest.approx(sum(norms) / 2, rel=1e-5)
    assert mean(found, "A", "gradients") is None
    assert {row["metric"] for row in found.missing} == {"gradients"}
    assert {row["why"] for row in found.missing} == {
        "weights do not say: only the history of a run has it"
    }
    assert not any("cross_entropy" in remark for remark in found.remarks)


def test_files_models_and_state_dicts_are_measured_alike(folder):
    models = {"A": [net(0), net(1)], "B": [net(5).state_dict(), "b-1.pt"]}
    metrics = ["train_loss", "test_accuracy", QUICK, "lambda_max"]
    by_file = compare(FILES, **BELONGS, metrics=metrics)
    in_memory = compare(models, **problems(net(9)), metrics=metrics)
    for group in "AB":
        for metric in metrics:
            one, other = (mean(found, group, metric) for found in (by_file, in_memory))
            assert one == pytest.approx(other, rel=1e-3), (group, metric)
    assert by_file.groups[1]["runs"] == ["b-0.pt", "b-1.pt"]
    assert in_memory.groups[1]["runs"] == ["B 1", "b-1.pt"]
    assert by_file.remarks[0] == "Without --loss, cross_entropy was assumed for the weights."


def test_models_come_back_as_they_were(folder):
    models = [net(0), net(1)]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    compare({"A": models[0], "B": models[1]}, **problems(models[0]), metrics=[QUICK])
    for model, state in zip(models, before, strict=True):
        assert model.training
        assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


def test_without_test_examples_and_labels_the_default_metrics_work():
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    problem = Problem(nn.Linear(2, 1), mse_loss, [(x, x[:, :1])])
    torch.manual_seed(1)
    found = compare({"A": [nn.Linear(2, 1)], "B": [nn.Linear(2, 1)]}, problem=problem)
    assert {row["metric"] for row in found.missing} == {"test_accuracy"}
    assert "no labels" in found.missing[0]["why"]
    assert mean(found, "A", "lambda_max") is not None


def test_a_restricted_problem_restricts_every_model():
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    problem = Problem(nn.Linear(2, 1), mse_loss, [(x, x[:, :1])], layers=["bias"])
    found = compare(
        {"A": nn.Linear(2, 1), "B": nn.Linear(2, 1)}, problem=problem, metrics=["trace"]
    )
    assert mean(found, "A", "trace") == pytest.approx(2, rel=1e-3)


def test_only_paired_files_are_paired(folder):
    apart = compare(FILES, **BELONGS, metrics=["train_loss"])
    paired = compare(FILES, **BELONGS, metrics=["train_loss"], paired=True)
    assert "Welch" in apart.outcomes[0]["test"]
    assert "paired" in paired.outcomes[0]["test"]
    assert apart.outcomes[0]["difference"] == pytest.approx(paired.outcomes[0]["difference"])
    with pytest.raises(InputError, match="as many of B as of A, but there are 1 and 2"):
        compare({**FILES, "B": ["b-0.pt"]}, **BELONGS, metrics=["train_loss"], paired=True)


def test_what_a_group_was_trained_with_makes_metrics_circular(folder):
    asked = ["sam", "expected:draws=2"]
    found = compare(FILES, **BELONGS, metrics=asked, trained_with={"B": "sam:rho=0.1"})
    by_metric = {test["metric"]: test["circular"] for test in found.tests}
    assert by_metric == {"sam": "sam trained on a worst case at rho = 0.1", asked[1]: ""}
    (known,) = [group["trained_with"] for group in found.groups if group["name"] == "B"]
    assert (known["method"], known["settings"]["rho"]) == ("sam", 0.1)
    (remark,) = [remark for remark in found.remarks if "not known" in remark]
    assert "the weights of A were" in remark
    everything = compare(FILES, **BELONGS, metrics=asked, trained_with={"A": "sgd", "B": "sam"})
    assert not any("not known" in remark for remark in everything.remarks)


def test_runs_and_files_of_one_problem_are_comparable(folder):
    for seed in range(2):
        config = TrainConfig(method="sgd", **BELONGS, epochs=1, batch_size=8, seed=seed)
        train(config, folder / "runs" / str(seed))
    weights = weight_groups({"SAM": FILES["B"]}, **BELONGS)
    found = compare([folder / "runs", *weights], metrics=[QUICK, "train_loss"], loss_tolerance=10)
    (test,) = found.tests
    assert (test["group"], test["baseline"], test["paired"]) == ("SAM", "sgd", False)
    assert "differ in" not in test["why"]
    # what a history says of a run is what is measured of its file
    final = str(folder / "runs" / "0" / "final.safetensors")
    again = compare({"A": final, "B": "a-0.pt"}, **BELONGS, metrics=["train_loss", "weight_norm"])
    recorded = compare([folder / "runs" / "0"], metrics=["train_loss", "weight_norm"])
    for metric in ("train_loss", "weight_norm"):
        assert mean(again, "A", metric) == pytest.approx(mean(recorded, "sgd", metric), rel=1e-5)
    # another loss is another problem
    other = weight_groups({"SAM": FILES["B"]}, **BELONGS, loss="net.py:weighted")
    found = compare([folder / "runs", *other], metrics=[QUICK], loss_tolerance=10)
    assert "the groups differ in loss" in found.tests[0]["why"]
    # runs under labels of the user's, paired by seed
    labels = {"X": [folder / "runs" / "0"], "Y": "a-0.pt"}
    assert compare(labels, **BELONGS, metrics=["train_loss"]).groups[0]["seeds"] == [0]
    assert weight_groups({"X": [folder / "runs" / "1"]})[0].seeded


def test_temperature_matches_files_and_checkpoints_are_refused(folder):
    found = compare(FILES, **BELONGS, metrics=[QUICK], match_by="temperature", paired=True)
    assert found.tests[0]["train_loss"][0] == found.tests[0]["train_loss"][1]
    (way,) = compare(FILES, **BELONGS, metrics=[QUICK], loss_tolerance=0).advice
    assert "add --match-by temperature" in way
    with pytest.raises(InputError, match=r"a-0.pt has no saved checkpoints.*match-by temperature"):
        compare(FILES, **BELONGS, metrics=[QUICK], match_loss=True)


def test_measurements_of_files_are_stored_in_the_given_folder_only(folder):
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    compare(FILES, **BELONGS, metrics=[QUICK])
    assert {p for p in folder.rglob("*") if "__pycache__" not in p.parts} == before
    first = compare(FILES, **BELONGS, metrics=[QUICK], folder=folder / "out")
    stored = sorted((folder / "out" / "measurements").rglob("*.json"))
    assert len(stored) == 4
    times = [path.stat().st_mtime_ns for path in stored]
    again = compare(FILES, **BELONGS, metrics=[QUICK], folder=folder / "out")
    assert again.values == first.values
    assert [path.stat().st_mtime_ns for path in stored] == times
    torch.save(net(7).state_dict(), "a-0.pt")  # other weights are measured anew
    other = compare(FILES, **BELONGS, metrics=[QUICK], folder=folder / "out")
    assert other.values["A"][QUICK][0] != first.values["A"][QUICK][0]
    assert other.values["B"] == first.values["B"]


def test_folded_batchnorm_is_not_comparable_and_two_shapes_are_refused():
    folded = nn.utils.fusion.fuse_linear_bn_eval(*net(1).eval()[:2])
    models = {"A": net(0), "B": nn.Sequential(folded, nn.Identity(), nn.ReLU(), net(1)[3])}
    found = compare(models, **problems(net(0)), metrics=[QUICK])
    assert "BatchNorm layers (1), which only one side has" in found.tests[0]["why"]
    models["B"] = net(0, width=5)
    with pytest.raises(InputError, match="A 1 and B 1 differ in the shapes"):
        compare(models, **problems(net(0)), metrics=[QUICK])


@pytest.mark.parametrize(
    ("groups", "options", "words"),
    [
        (FILES, {"data": "net.py:load"}, "need --model"),
        (FILES, {"model": "net.py:make"}, "need --data"),
        ({"A": ["a-0.pt", "./a-0.pt"], "B": "b-0.pt"}, BELONGS, "given twice .in A."),
        ({"A": "a-0.pt", "B": ["b-0.pt", "a-0.pt"]}, BELONGS, "given twice .in A and in B."),
        ({"A": "a-0.pt", "B": []}, BELONGS, "the group B is empty"),
        ({"A": "a-0.pt"}, BELONGS, "only one group, A: add another"),
        ({"A": "a-0.pt", "B": "gone.pt"}, BELONGS, "no checkpoint gone.pt"),
        ({"A": "a-0.pt", "B": "nan.pt"}, BELONGS, "nan.pt: the train loss is nan"),
        (FILES, {**BELONGS, "trained_with": {"C": "sam"}}, "unknown label.*'C'"),
        (FILES, {**BELONGS, "trained_with": {"A": "san"}}, "unknown method 'san'"),
        (FILES, {**BELONGS, "trained_with": {"A": "sam:roh=1"}}, "did you mean 'rho'"),
        (FILES, {**BELONGS, "correlate": True}, "correlate needs runs"),
        (FILES, {**BELONGS, "baseline": "C"}, "unknown baseline 'C'"),
        ({"A": "a-0.pt", "B": {"w": torch.zeros(1)}}, BELONGS, "in memory: give problem="),
        (["a-0.pt"], BELONGS, "model= belongs to weights"),
    ],
)
def test_bad_input_is_refused_in_one_line(folder, groups, options, words):
    broken = net(0)
    broken[0].weight.data[0, 0] = math.nan
    torch.save(broken.state_dict(), "nan.pt")
    with pytest.raises(InputError, match=words) as raised:
        compare(groups, **options, metrics=["train_loss"])
    assert "\n" not in str(raised.value)


def test_two_groups_of_one_name_are_refused(folder):
    twice = [*weight_groups({"A": "a-0.pt"}, **BELONGS), *weight_groups({"A": "a-1.pt"}, **BELONGS)]
    with pytest.raises(InputError, match="two groups are called 'A'"):
        compare(twice, metrics=["train_loss"])


def test_samples_are_the_first_examples():
    train, _ = splits()
    model = net(0)
    (x, y), cut = train[0], MeasurementSettings(samples=10)
    found = compare(
        {"A": model, "B": net(1)},
        problem=Problem(model, cross_entropy, [(x[:7], y[:7]), (x[7:], y[7:])]),
        metrics=["trace"],
        settings=cut,
    )
    few = Problem(model, cross_entropy, [(x[:7], y[:7]), (x[7:10], y[7:10])])
    whole = compare({"A": model, "B": net(1)}, problem=few, metrics=["trace"])
    assert found.values == whole.values


def test_patterns(folder):
    for name in ("c-10.pt", "c-9.pt", "c=1.pt"):
        (folder / name).write_bytes(b"")
    found = group_files(["C=c-*.pt", "C=c=1.pt", f"A={folder}/a-?.pt"])
    assert found["C"] == ["c-9.pt", "c-10.pt", "c=1.pt"]
    assert found["A"] == [f"{folder}/a-0.pt", f"{folder}/a-1.pt"]
    for wrong in ("C", "=c.pt", "C="):
        with pytest.raises(InputError, match="LABEL=PATTERN"):
            group_files([wrong])
    with pytest.raises(InputError, match="no file matches d-"):
        group_files(["D=d-*.pt"])
    assert labelled(["A=sam:rho=0.1,m=2"]) == {"A": "sam:rho=0.1,m=2"}
    with pytest.raises(InputError, match="names A twice"):
        labelled(["A=sam", "A=sgd"])


def test_only_a_plain_cross_entropy_is_called_so():
    assert loss_name(cross_entropy) == loss_name(nn.CrossEntropyLoss()) == "cross_entropy"
    assert loss_name(nn.CrossEntropyLoss(label_smoothing=0.1)) != "cross_entropy"
    own = {}
    exec("def cross_entropy(a, b): return a.mean()", {"__name__": "net"}, own)
    assert loss_name(own["cross_entropy"]) == "net:cross_entropy"
