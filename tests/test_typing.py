"""A user's script passes ``mypy --strict``: the public names are typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import torch
from torch import nn

import ssgd_analysis as sa

x, y = torch.randn(64, 4), torch.zeros(64, dtype=torch.long)
problem = sa.Problem(nn.Linear(4, 2), nn.functional.cross_entropy, [(x, y)])
H = sa.HessianOperator(problem)
largest: float = sa.eigenpairs(H, 1, seed=0).largest[0].value
total: float = sa.trace(H, seed=0).value
rise: float = sa.flatness.expected(problem, sigma=0.1).value
record: sa.SharpnessRecord = sa.measure(problem, top=1)
version: str = sa.__version__
optimizer = sa.SSGD(problem.model.parameters(), torch.optim.SGD, noise_scale=0.1, lr=0.1)
"""
WRONG = """
sa.flatness.expected(problem, sgima=0.1)
sa.no_such_name
"""


@pytest.mark.slow
def test_a_users_script_passes_strict_checks_and_mistakes_are_found(tmp_path):
    def checked(text: str) -> subprocess.CompletedProcess:
        path = tmp_path / "script.py"
        path.write_text(text)
        cache = tmp_path / "cache"
        command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
        # an editable install is a hook at run time, which mypy does not see
        where = {**os.environ, "MYPYPATH": str(ROOT)}
        return subprocess.run(
            [*command, "--cache-dir", cache, path],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=where,
        )

    right = checked(SCRIPT)
    assert right.returncode == 0, right.stdout
    wrong = checked(SCRIPT + WRONG)
    assert wrong.returncode == 1
    assert "No overload variant" in wrong.stdout  # a setting's name is mistyped
    assert "no_such_name" in wrong.stdout
