"""A built wheel holds the package, the command line inside it, and the studies."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ssgd_analysis"}
    assert "ssgd_analysis/cli/main.py" in names
    assert "ssgd_analysis/studies/digits.toml" in names
    assert "ssgd_analysis/plots/ssgd.mplstyle" in names
    assert "ssgd_analysis/py.typed" in names
    sources = {
        *(f"ssgd_analysis/cli/{path.name}" for path in (ROOT / "cli").glob("*.py")),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "ssgd_analysis").rglob("*.py")),
    }
    assert sources <= set(names)  # pyproject.toml lists the packages by hand
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    code = "import sys; from ssgd_analysis.cli.main import main; main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "sharpness" in done.stdout
