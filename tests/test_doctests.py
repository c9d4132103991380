"""The examples in docstrings run as printed."""

import doctest
import importlib

import pytest
from test_architecture import LIBRARY, SOURCES

import ssgd_analysis
from ssgd_analysis.flatness import METRICS

WITH_EXAMPLES = [name for name in LIBRARY if ">>> " in SOURCES[name].read_text(encoding="utf-8")]


def test_there_are_examples():
    assert len(WITH_EXAMPLES) > 40


def test_every_public_name_has_an_example():
    public = {name: getattr(ssgd_analysis, name) for name in ssgd_analysis.__all__} | METRICS
    bare = {name for name, thing in public.items() if ">>> " not in (thing.__doc__ or "")}
    assert bare == {"flatness"}, "which is a module"


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
