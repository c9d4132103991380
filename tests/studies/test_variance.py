"""The variances that a study reports: at equal cost they count the passes of a noisy step."""

import dataclasses

import pytest

from ssgd_analysis import random_state
from ssgd_analysis.methods.noise_variance import noise_variance
from ssgd_analysis.runs import Run
from ssgd_analysis.runs.tensors import read_tensors
from ssgd_analysis.studies.load import load_study
from ssgd_analysis.studies.variance import noise_variances
from ssgd_analysis.training import train
from ssgd_analysis.training.setup import prepare

SPEC = """
seeds = [0]
budget = 1
focus = "symmetric"
against = "two"
variance_scales = [0.0, 0.1]
variance_draws = 64
[train]
data = "digits"
model = "mlp"
batch_size = 64
[[arm]]
label = "one"
method = "wni"
[[arm]]
label = "two"
method = "wni-2"
[[arm]]
label = "symmetric"
method = "s-sgd"
"""


def test_a_row_has_the_passes_of_its_noisy_steps(tmp_path):
    path = tmp_path / "variance.toml"
    path.write_text(SPEC, encoding="utf-8")
    study = load_study(str(path))
    config = study.config(study.settings[0], study.arms[2], 0)
    train(config, tmp_path / "run")
    rows = noise_variances(study, [tmp_path / "run"], jobs=1)
    noisy = {row["arm"]: row for row in rows if (row["weights"], row["scale"]) == ("final", 0.1)}
    assert {arm: row["passes"] for arm, row in noisy.items()} == {
        "one": 1, "two": 2, "symmetric": 2,
    }  # fmt: skip
    assert all(row["passes"] == 1 and row["variance"] == 0 for row in rows if not row["scale"])
    # two independent points halve the variance of one, so that at equal cost they are the same
    ratio = noisy["one"]["variance"] / noisy["two"]["variance"]
    assert ratio == pytest.approx(2, rel=0.35)


def test_every_arm_has_its_own_settings_of_the_study(tmp_path):
    """Tuned and per-setting values count; the row's scale is the noise at any time of training."""
    path = tmp_path / "variance.toml"
    path.write_text(
        SPEC.replace("variance_draws = 64", "variance_draws = 16")
        + '[[setting]]\nname = "absolute"\nset = { noise_relative_to = "none" }\n'
        + '[[setting]]\nname = "late"\nset = { noise_start = 0.5, noise_stop = 0.75 }\n',
        encoding="utf-8",
    )
    study = load_study(str(path))
    plain, late = study.settings
    train(study.config(plain, study.arms[2], 0), tmp_path / "run")

    def variance(setting, **chosen):
        configs = {arm.label: study.config(setting, arm, 0, chosen=chosen) for arm in study.arms}
        rows = noise_variances(study, [tmp_path / "run"], jobs=1, configs=configs)
        return {
            row["arm"]: (row["variance"], row["passes"])
            for row in rows
            if (row["weights"], row["scale"]) == ("final", 0.1)
        }

    def by_hand(method, settings):
        """One arm's variance by a task of its own."""
        config = dataclasses.replace(
            Run(tmp_path / "run").config(), method=method, settings=settings
        )
        with random_state.seeded(config.seed):
            parts = prepare(config)
        parts.model.load_state_dict(read_tensors(Run(tmp_path / "run").final)[0])
        parts.model.train()
        examples = (parts.data.train.inputs[:64], parts.data.train.targets[:64])
        return noise_variance(parts.method, examples, draws=16)["variance"]

    absolute = variance(plain)
    for arm in study.arms:
        settings = {"noise_scale": 0.1, "noise_relative_to": "none"}
        assert absolute[arm.label][0] == pytest.approx(by_hand(arm.method, settings), rel=1e-5)
    scheduled = variance(late)
    for arm in study.arms:
        settings = {"noise_scale": 0.1}
        assert scheduled[arm.label][0] == pytest.approx(by_hand(arm.method, settings), rel=1e-5)
    # a noisy step's passes, not the mean over a training that is noisy for a quarter
    assert [scheduled[arm][1] for arm in ("one", "two", "symmetric")] == [1, 2, 2]
    tuned = variance(plain, noise_relative_to="filter")  # what was tuned counts before the setting
    assert tuned == scheduled


def test_arms_that_are_not_there_are_left_out(tmp_path):
    path = tmp_path / "variance.toml"
    path.write_text(SPEC.replace("= 64\n[train]", "= 4\n[train]"), encoding="utf-8")
    study = load_study(str(path))
    config = study.config(study.settings[0], study.arms[2], 0)
    train(config, tmp_path / "run")
    rows = noise_variances(study, [tmp_path / "run"], jobs=1, configs={"symmetric": config})
    assert {row["arm"] for row in rows} == {"symmetric"}
    assert all(row["ratio"] is None for row in rows)
