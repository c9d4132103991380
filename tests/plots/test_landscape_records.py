"""The records that tests of pictures are drawn from are as a real run writes them."""

import dataclasses

import nets
import pytest
import torch
from landscape_records import landscape as built_landscape

from ssgd_analysis.landscapes import LandscapeSettings, NamedProblem, landscape
from ssgd_analysis.problem import Problem


def subjects(count: int, path: bool, test: bool) -> list[NamedProblem]:
    made = []
    for seed in range(count):
        case = nets.mlp()
        ways = {}
        with torch.no_grad():
            for step in range(4):
                for number, parameter in enumerate(case.model.parameters()):
                    parameter.add_(
                        0.1 * nets.randn(*parameter.shape, seed=100 * seed + 10 * step + number)
                    )
                ways[step] = {k: v.clone() for k, v in case.model.state_dict().items()}
        problem = Problem(*case.problem)
        own = problem if test else None
        made.append(NamedProblem(f"run-{seed}", problem, path=ways if path else {}, test=own))
    return made


@pytest.mark.parametrize("split", ["train", "both"])
@pytest.mark.parametrize(
    ("directions", "dims", "count"),
    [("random", 1, 2), ("random", 2, 1), ("eigen", 1, 1), ("eigen", 2, 1), ("trajectory", 1, 1),
     ("trajectory", 2, 1), ("between", 1, 2), ("between", 2, 3)],
)  # fmt: skip
def test_keys_marks_and_units(directions, dims, count, split):
    names = tuple(f"run-{number}" for number in range(count))
    built, arrays = built_landscape(directions, dims=dims, names=names, points=5, split=split)
    normalize = built["settings"]["normalize"]
    settings = LandscapeSettings(dims=dims, directions=directions, normalize=normalize, points=5)
    made = landscape(subjects(count, directions == "trajectory", split == "both"), settings)
    assert built["settings"].keys() == dataclasses.asdict(settings).keys()
    assert built["units"] == made.units
    assert {k: v.shape for k, v in arrays.items()} == {k: v.shape for k, v in made.arrays.items()}
    for own, real in zip(built["grids"], made.grids, strict=True):
        assert own.keys() == real.keys()
        if "asymmetry" in real:
            assert [side.keys() for side in own["asymmetry"]] == [
                side.keys() for side in real["asymmetry"]
            ]
        unknown = [{k for k, v in facts.items() if v is None} for facts in (own, real)]
        assert unknown[0] == unknown[1]
        assert [mark["label"] for mark in own["marks"]] == [m["label"] for m in real["marks"]]
        assert [mark.keys() for mark in own["marks"]] == [m.keys() for m in real["marks"]]
        assert own.get("path", {}).keys() == real.get("path", {}).keys()
        for key in ("norms", "slopes", "curvatures", "explained_variance"):
            assert len(own.get(key) or []) == len(real.get(key) or [])
