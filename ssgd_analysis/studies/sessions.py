"""The sessions of a study: commands, time, machine, versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssgd_analysis.files import read_json, write_json

PACKAGES = ("ssgd-analysis", "torch", "numpy", "scipy")


def machine() -> dict[str, Any]:
    """The processor by name, its cores, and the versions that computed."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def add_session(out: Path, session: dict[str, Any]) -> list[dict[str, Any]]:
    """Add a session to ``sessions.json`` and return all of them.

    A session that trained nothing is not recorded, nor is one that was killed.
    """
    path = out / "sessions.json"
    sessions: list[dict[str, Any]] = read_json(path) if path.is_file() else []
    if session["trained"] or not sessions:
        sessions.append(session)
        write_json(path, sessions)
    return sessions
