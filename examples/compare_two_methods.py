"""Compare SGD with S-SGD over three seeds at equal cost, and draw a landscape of one pair.

Run it with ``python examples/compare_two_methods.py``; it takes some seconds on one core and writes
into a new folder here.
"""

import tempfile
from pathlib import Path

from ssgd_analysis.comparison import compare
from ssgd_analysis.landscapes import LandscapeSettings, NamedProblem, landscape
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.runs.checkpoint import load_checkpoint
from ssgd_analysis.training import train

folder = Path(tempfile.mkdtemp(prefix="comparison-", dir="."))
# S-SGD makes two passes a step, so it gets half the epochs; checkpoints let us match train losses.
METHODS = {"sgd": ({}, 20), "s-sgd": ({"noise_scale": 0.3}, 10)}

for method, (settings, epochs) in METHODS.items():
    for seed in range(3):
        config = TrainConfig(
            method=method,
            settings=settings,
            data="digits",
            model="mlp",
            epochs=epochs,
            save_every=1,
            seed=seed,
        )
        final = train(config, folder / "runs" / f"{method}-{seed}")["final"]
        print(f"{method:6} seed {seed}: test accuracy {final['test_accuracy']:.1%}")

# `expected` does not move when weights are rescaled, so it can decide. Matching goes back to
# checkpoints of equal train loss: at different losses flatness says nothing about the methods.
found = compare(folder / "runs", metrics=["expected", "test_accuracy"], match_loss=True)
print(found.answer)
print(found.verdict)
found.save(folder / "report")

# Both networks along the same five random directions, on one scale.
problems = []
for method in METHODS:
    checkpoint = load_checkpoint(str(folder / "runs" / f"{method}-0"))
    problems.append(NamedProblem(method, checkpoint.problem("train")))
landscape(problems, LandscapeSettings(repeats=5, points=11)).save(folder / "pictures")
print(f"see {folder}/report/report.html and {folder}/pictures/landscape.png")
