"""Labels before checkpoints."""

import pytest

from ssgd_analysis.errors import InputError
from ssgd_analysis.runs.labels import split_labels


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("A=a.pt", ("A", "a.pt")),
        ("A b=runs/x@10", ("A b", "runs/x@10")),
        ("A=lr=1.pt", ("A", "lr=1.pt")),
        ("lr=0.1.pt", None),  # it exists
        ("lr=0.1@20", None),  # a step of a folder that exists
        ("lr=0.2@20", ("lr", "0.2@20")),
        ("runs/lr=0.1", None),
        ("a.pt", None),
        ("=a.pt", None),
        ("A=", None),
    ],
)
def test_what_is_a_label(tmp_path, monkeypatch, name, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1.pt").touch()
    (tmp_path / "lr=0.1").mkdir()
    assert split_labels([name]) == [found or (name, name)]


def test_a_label_names_one_checkpoint():
    with pytest.raises(InputError, match="two checkpoints are called 'A'"):
        split_labels(["A=a.pt", "A=b.pt"])
    assert split_labels(["a.pt", "a.pt"]) == [("a.pt", "a.pt")] * 2  # as before, without labels
