"""Checks the JSON of the small study: python .ci/check_study.py ANSWER.json."""

import json
import sys
from pathlib import Path

answer = json.loads(Path(sys.argv[1]).read_text())
groups = {group["name"]: group["metrics"] for group in answer["groups"]}
assert set(groups) == {"SGD", "S-SGD", "SAM"}, groups.keys()
steps = 3 * (1297 // 64)
assert groups["SGD"]["gradients"]["mean"] == steps
assert groups["S-SGD"]["gradients"]["mean"] == groups["SAM"]["gradients"]["mean"] == 2 * steps
for name, metrics in groups.items():
    assert metrics["test_accuracy"]["mean"] > 0.8, (name, metrics)
    assert metrics["lambda_max"]["mean"] > 0, (name, metrics)
    assert metrics["lambda_max"]["ci95"] is None, "one seed carries no interval"
verdicts = {test["verdict"] for test in answer["tests"]}
assert verdicts <= {"undecided", "not comparable"}, answer["tests"]
assert "S-SGD" in answer["verdict"]
for path in (answer["report"], *answer["pictures"]):
    assert Path(path).stat().st_size > 1000, path
print(f"study: {answer['verdict']}")
