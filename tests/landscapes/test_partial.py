import dataclasses
from pathlib import Path

import nets
import numpy as np
import pytest
import reference
import torch

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes import (
    Grid,
    LandscapeSettings,
    NamedProblem,
    landscape,
)
from ssgd_analysis.landscapes import (
    sampling as points,
)
from ssgd_analysis.landscapes.partial import PartialResults
from ssgd_analysis.problem import Problem


def subject(case: nets.Case, name: str = "one", **options) -> NamedProblem:
    return NamedProblem(name, Problem(*case.problem), case.batches(), **options)


def moved(case: nets.Case, factor: float = 0.5) -> nets.Case:
    """Another checkpoint of the same model."""
    model = nets.evaluated(case.model)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.add_(factor * nets.randn(*parameter.shape, seed=seed))
    return dataclasses.replace(case, model=model)


class Counting(points.Evaluator):
    """Counts points; a call beyond ``left`` is interrupted."""

    count, left = 0, None

    def evaluate(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if Counting.left is not None:
            if Counting.left == 0:
                raise KeyboardInterrupt
            Counting.left -= 1
        Counting.count += len(places)
        return super().evaluate(places)


@pytest.fixture(autouse=True)
def _counted(monkeypatch):
    monkeypatch.setattr(points, "Evaluator", Counting)
    monkeypatch.setattr(Counting, "count", 0)
    monkeypatch.setattr(Counting, "left", None)


BARE = {"curvature": False}  # as dear as all points, and not of what is kept
RESUMED = [
    LandscapeSettings(points=20, repeats=2, **BARE),
    LandscapeSettings(dims=2, points=4, **BARE),
    LandscapeSettings(dims=2, points=4, directions="eigen", normalize="none", **BARE),
    LandscapeSettings(points=30, directions="between", normalize="none", **BARE),
    LandscapeSettings(points=20, bn="recalibrate", **BARE),
    LandscapeSettings(points=10, dims=2, adaptive=True, **BARE),
]


def pair(case: nets.Case) -> list[NamedProblem]:
    return [subject(one, name) for one, name in zip((case, moved(case)), "ab", strict=True)]


def run(chosen: LandscapeSettings, folder: Path, case=None, **options) -> dict:
    subjects = pair(case or nets.conv_batchnorm())
    return landscape(subjects, chosen, folder=folder, **options).arrays


@pytest.mark.parametrize(
    "chosen", RESUMED, ids=lambda chosen: f"{chosen.directions}{chosen.dims}{chosen.adaptive}"
)
@pytest.mark.parametrize("calls", [1, 3])
def test_resume_repeats_nothing_and_gives_the_same(tmp_path, chosen, calls):
    whole = run(chosen, tmp_path / "other")
    every = Counting.count
    Counting.count, Counting.left = 0, calls
    with pytest.raises(KeyboardInterrupt):
        run(chosen, tmp_path / "partial")
    done = Counting.count
    assert 0 < done < every
    Counting.count, Counting.left = 0, None
    resumed = run(chosen, tmp_path / "partial", resume=True)
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name])
    assert Counting.count == every - done  # every point of a call that ended was kept


def test_a_finished_landscape_is_not_evaluated_again(tmp_path):
    whole = run(RESUMED[0], tmp_path)
    Counting.count = 0
    resumed = run(RESUMED[0], tmp_path, resume=True)
    assert Counting.count == 0
    np.testing.assert_array_equal(resumed["loss"], whole["loss"])


def test_without_resume_all_is_computed_anew(tmp_path):
    run(RESUMED[0], tmp_path)
    Counting.count = 0
    run(RESUMED[0], tmp_path)
    assert Counting.count == 2 * 2 * 20  # subjects, repeats, points


def test_resume_without_a_folder_starts_at_the_beginning(tmp_path):
    found = run(RESUMED[0], tmp_path / "none", resume=True)
    assert np.isfinite(found["loss"]).all()


def test_points_of_several_processes_are_taken_up_by_one(tmp_path):
    grid = Grid.empty([np.arange(3.0)])
    for rank in range(3):
        grid.values["loss"][rank], grid.done[rank] = rank + 0.5, True
        PartialResults(tmp_path, "key", rank).save(0, grid, {"main": {"way": "plain", "chunk": 3}})
        grid.done[:] = False
    whole = Grid.empty([np.arange(3.0)])
    assert PartialResults(tmp_path, "key").load(0, whole) == {"main": {"way": "plain", "chunk": 3}}
    assert whole.done.all()
    np.testing.assert_array_equal(whole.values["loss"], [0.5, 1.5, 2.5])


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"span": 2.0}, {"normalize": "layer"}, {"bn": "recalibrate"}, {"points": 6}],
    ids=str,
)
def test_a_partial_file_of_other_settings_is_refused(tmp_path, change):
    run(RESUMED[0], tmp_path)
    partial = tmp_path / "landscape.partial"
    content = {path: path.read_bytes() for path in partial.iterdir()}
    with pytest.raises(InputError, match="another landscape"):
        run(dataclasses.replace(RESUMED[0], **change), tmp_path, resume=True)
    assert {path: path.read_bytes() for path in partial.iterdir()} == content


def refuses(
    folder: Path, old: list[NamedProblem], new: list[NamedProblem], chosen=RESUMED[0]
) -> None:
    landscape(old, chosen, folder=folder)
    with pytest.raises(InputError, match="another landscape"):
        landscape(new, chosen, folder=folder, resume=True)


def test_a_partial_file_of_other_weights_is_refused(tmp_path):
    case = nets.mlp()
    refuses(tmp_path, [subject(case)], [subject(moved(case, 1e-12))])


def test_a_partial_file_of_other_frozen_weights_is_refused(tmp_path):
    case, other = nets.frozen(), nets.frozen()
    with torch.no_grad():
        other.model[0].weight.add_(0.5)
    refuses(tmp_path, [subject(case)], [subject(other)])


def test_a_partial_file_of_other_statistics_is_refused(tmp_path):
    case, other = nets.conv_batchnorm(), nets.conv_batchnorm()
    other.model[1].running_mean.add_(0.5)
    refuses(tmp_path, [subject(case)], [subject(other)])


def test_a_partial_file_of_other_data_is_refused(tmp_path):
    case = nets.mlp()
    other = dataclasses.replace(case, targets=nets.labels(seed=5))
    refuses(tmp_path, [subject(case)], [subject(other)])


def test_a_partial_file_of_other_calibration_is_refused(tmp_path):
    case = nets.conv_batchnorm()
    other = dataclasses.replace(subject(case), calibration=case.batches()[:1])
    chosen = LandscapeSettings(points=3, bn="recalibrate")
    refuses(tmp_path, [subject(case)], [other], chosen)


def test_a_partial_file_of_another_trajectory_is_refused(tmp_path):
    case = nets.mlp()
    paths = [
        {
            0: {
                n: w + nets.randn(*w.shape, seed=seed)
                for n, w in reference.trainable(case.model).items()
            }
        }
        for seed in (0, 1)
    ]
    chosen = LandscapeSettings(directions="trajectory", points=3)
    refuses(tmp_path, *([subject(case, path=path)] for path in paths), chosen=chosen)


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "foreign"])
def test_a_damaged_partial_file_is_refused_in_a_line(tmp_path, damage):
    run(RESUMED[0], tmp_path)
    kept = tmp_path / "landscape.partial" / "0-0.npz"
    whole = kept.read_bytes()
    if damage == "foreign":
        np.savez(kept, alpha=np.zeros(3))
    else:
        changed = {"empty": b"", "garbage": b"nothing", "truncated": whole[: len(whole) // 2]}
        kept.write_bytes(changed[damage])
    with pytest.raises(InputError, match="damaged"):
        run(RESUMED[0], tmp_path, resume=True)
