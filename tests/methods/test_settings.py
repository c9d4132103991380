"""Hyper-parameters as a user types them."""

import dataclasses

import pytest

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS, parse_settings
from ssgd_analysis.methods.base import Method, describe_settings, make_settings


def _parse(name: str, *assignments: str):
    return parse_settings(name, METHODS[name], assignments)


def test_values_get_the_type_of_their_default():
    settings = _parse("s-sgd", "noise_scale=2e-1", "noise_law=gaussian", "minibatch=halves")
    assert settings.noise_scale == 0.2
    assert settings.noise_law == "gaussian"
    assert settings.minibatch == "halves"
    assert settings.bn_stats == "first"


def test_a_whole_number_is_a_float_where_one_is_due():
    settings = _parse("sam", "rho=1")
    assert settings.rho == 1.0
    assert isinstance(settings.rho, float)


def test_nothing_given_means_the_defaults():
    for name, method in METHODS.items():
        assert _parse(name) == method.Settings()


def test_a_value_may_hold_an_equals_sign():
    assert _parse("wni", "exclude=a=b*").exclude == "a=b*"


@pytest.mark.parametrize(
    ("name", "assignment", "words"),
    [
        ("s-sgd", "noise_scal=0.1", ["noise_scal", "did you mean 'noise_scale'"]),
        ("sam", "roh=0.1", ["roh", "did you mean 'rho'"]),
        ("sgd", "rho=0.1", ["setting of sgd", "rho", "ghost_batch"]),
        ("s-sgd", "noise_scale", ["noise_scale", "NAME=VALUE"]),
        ("s-sgd", "noise_scale=big", ["noise_scale=big", "'big'", "float"]),
        ("s-sgd", "noise_scale=", ["noise_scale=", "float"]),
        ("s-sgd", "noise_scale=-0.1", ["noise_scale", "-0.1", "at least 0"]),
        ("s-sgd", "noise_scale=nan", ["noise_scale", "finite"]),
        ("s-sgd", "noise_scale=inf", ["noise_scale", "finite"]),
        ("s-sgd", "noise_scale=-inf", ["noise_scale", "finite"]),
        ("s-sgd", "noise_end=-1", ["noise_end", "at least 0"]),
        ("sam", "rho=-0.05", ["rho", "at least 0"]),
        ("s-sgd", "noise_law=cauchy", ["noise_law=cauchy", "binary", "gaussian", "sphere"]),
        ("s-sgd", "noise_relative_to=norm", ["noise_relative_to", "filter", "layer"]),
        ("s-sgd", "noise_schedule=step", ["noise_schedule", "constant", "cosine"]),
        ("s-sgd", "minibatch=thirds", ["minibatch=thirds", "same", "halves"]),
        ("wni", "minibatch=halves", ["minibatch", "wni"]),
        ("s-sgd", "bn_stats=none", ["bn_stats", "first", "clean", "both", "frozen"]),
        ("sam", "bn_stats=clean", ["bn_stats", "first", "both", "frozen"]),
    ],
)
def test_what_does_not_fit_is_refused_in_words(name, assignment, words):
    with pytest.raises(InputError) as caught:
        _parse(name, assignment)
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize(
    ("field", "value"),
    [("noise_scale", "big"), ("noise_scale", None), ("exclude", 3), ("noise_end", "0.5")],
)
def test_values_of_a_wrong_type_are_refused_also_from_a_file(field, value):
    """Studies and run folders hold settings as TOML and JSON values, not as text."""
    with pytest.raises(InputError, match=field):
        METHODS["s-sgd"].Settings(**{field: value})


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS["sam"].Settings().rho = 1.0


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_described(name):
    described = describe_settings(METHODS[name])
    fields = {field.name: field for field in dataclasses.fields(METHODS[name].Settings)}
    assert [entry["name"] for entry in described] == list(fields)
    for entry in described:
        assert entry["type"] in ("float", "int", "str", "bool")
        assert len(entry["meaning"]) > 10
        assert entry["default"] == fields[entry["name"]].default
        assert not entry["choices"] or entry["default"] in entry["choices"]


def test_a_method_without_settings_says_so():
    with pytest.raises(InputError, match="'bare' has no settings, so none called 'rho'"):
        make_settings("bare", Method, {"rho": 1.0})
