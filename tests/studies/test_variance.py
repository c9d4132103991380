"""The variances that a study reports: at equal cost they count the passes of a noisy step."""

import pytest

from ssgd_analysis.studies.load import load_study
from ssgd_analysis.studies.variance import noise_variances
from ssgd_analysis.training import train

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
