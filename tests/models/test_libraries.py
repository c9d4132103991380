"""Models of other packages: fitted to the data, random weights, no network."""

import json
import socket
import sys

import nets
import pytest
import torch

from ssgd_analysis import references
from ssgd_analysis.code_hash import code_hash
from ssgd_analysis.errors import InputError
from ssgd_analysis.models import load_model
from ssgd_analysis.runs.fitting import load_weights
from ssgd_analysis.runs.weight_files import read_weight_file

GREY = (1, 8, 8)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("a model must not need the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("test_resnet", (2, 16, 16)), ("test_vit", (1, 32, 32)), ("test_vit", (3, 32, 64))],
)
def test_timm_models_follow_the_data(name, shape):
    pytest.importorskip("timm")
    model = load_model(f"timm:{name}", shape, 7)
    assert model(torch.randn(2, *shape)).shape == (2, 7)


def test_timm_weights_come_from_the_global_generator():
    pytest.importorskip("timm")
    found = []
    for seed in (0, 0, 1):
        with nets.seeded(seed):
            model = load_model("timm:test_resnet", GREY, 3)
        found.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("resnet-18", GREY, "unknown timm model 'resnet-18': did you mean 'resnet"),
        ("hf-hub:user/model", GREY, "unknown timm model"),
        ("test_resnet", (8,), "(channels, height, width)"),
        ("test_vit", (3, 5, 5), "images of 5 × 5: smaller than a patch"),
        ("test_resnet", (0, 8, 8), "cannot be made with"),
    ],
)
def test_timm_refusals(name, shape, words):
    pytest.importorskip("timm")
    with pytest.raises(InputError) as caught:
        load_model(f"timm:{name}", shape, 3)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("timm:resnet18", "timm", "timm"), ("hf:{folder}", "transformers", "hf")],
)
def test_a_missing_package_is_named(monkeypatch, tmp_path, name, package, extra):
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as caught:
        load_model(name.format(folder=tmp_path), GREY, 3)
    assert f"needs {package}: pip install 'ssgd-analysis[{extra}]'" in str(caught.value)


def language_model(folder):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 7, "n_positions": 6, "n_embd": 4, "n_layer": 1, "n_head": 2}
    with nets.seeded():
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("outputs", [None, 7])
def test_a_language_model_from_its_folder(tmp_path, outputs):
    source = language_model(tmp_path)
    model = load_model(f"hf:{tmp_path}", (6,), outputs).eval()
    tokens = torch.arange(6).reshape(1, 6)
    assert load_weights(model, read_weight_file(tmp_path), tmp_path) == []
    expected = source(tokens).logits
    found = model(input_ids=tokens, labels=tokens) if outputs is None else model(tokens)
    assert torch.equal(found.logits if outputs is None else found, expected)


def test_an_image_classifier_follows_the_data(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=4, image_size=16, patch_size=4, num_labels=3,
        architectures=["ViTForImageClassification"],
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}", GREY, 10)
    x = torch.randn(2, *GREY)
    assert model(x).shape == (2, 10)
    model.model.save_pretrained(tmp_path)  # under other names than those of the modules
    saved = read_weight_file(tmp_path)
    other = load_model(f"hf:{tmp_path}", GREY, 10)
    assert load_weights(other, saved, tmp_path) == []
    assert torch.equal(other.eval()(x), model.eval()(x))
    before = other(x)
    saved.pop("classifier.bias")
    with pytest.raises(InputError, match="classifier"):
        load_weights(other, saved, tmp_path)
    assert torch.equal(other(x), before)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "config.json with 'architectures'"),
        ("{", "config.json with 'architectures'"),
        ("[]", "config.json with 'architectures'"),
        ({"architectures": []}, "config.json with 'architectures'"),
        ({"architectures": ["os"]}, "transformers has no model os"),
        ({"architectures": ["NoSuchModel"]}, "transformers has no model NoSuchModel"),
        (
            {"architectures": ["GPT2LMHeadModel"], "model_type": "own", "auto_map": {"A": "x.y"}},
            "cannot be made",
        ),
    ],
)
def test_folders_that_describe_no_model(tmp_path, config, words):
    pytest.importorskip("transformers")
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_model(f"hf:{tmp_path}", GREY, 3)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_kept_as_a_whole_path_and_its_config_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    name = references.absolute("hf:m")
    assert name == f"hf:{tmp_path / 'm'}"
    before = code_hash(name)
    (tmp_path / "m" / "config.json").write_text('{"n_layer": 2}')
    assert code_hash(name) != before
    assert not references.is_reference("hf:folder.py")
