"""Foreign weights as a checkpoint, by whatever file or folder they are in."""

import json
import shutil

import nets
import pytest
import torch
from safetensors.torch import save_file

from ssgd_analysis.errors import InputError
from ssgd_analysis.models import load_model
from ssgd_analysis.runs.checkpoint import load_checkpoint

FOREIGN = {"model": "mlp", "data": "digits"}


@pytest.fixture(scope="module")
def model():
    with nets.seeded():
        return load_model("mlp", (1, 8, 8), 10)


def same(found, expected) -> bool:
    pairs = zip(found.state_dict().values(), expected.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


def test_a_folder_with_another_tools_config(tmp_path, model):
    (tmp_path / "config.json").write_text('{"architectures": ["Net"]}')
    files = {}
    for name, tensor in model.state_dict().items():
        files[f"net.{name}"] = f"{name}.safetensors"
        save_file({f"net.{name}": tensor}, tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    for name in (tmp_path, index):
        checkpoint = load_checkpoint(str(name), **FOREIGN)
        assert same(checkpoint.model, model)
        assert checkpoint.run is None
    with pytest.raises(InputError, match="not part of a run: add --model and --data"):
        load_checkpoint(str(tmp_path))


def test_a_folder_without_any_config(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    assert same(load_checkpoint(str(tmp_path), **FOREIGN).model, model)
    shutil.copy(tmp_path / "weights.safetensors", tmp_path / "more.safetensors")
    with pytest.raises(InputError, match="2 of them"):
        load_checkpoint(str(tmp_path), **FOREIGN)


def test_notes_begin_those_of_the_problem(tmp_path, model):
    state = model.state_dict()
    torch.save({"net": state, "ema": {n: t + 1 for n, t in state.items()}}, tmp_path / "w.th")
    checkpoint = load_checkpoint(str(tmp_path / "w.th"), **FOREIGN)
    assert same(checkpoint.model, model)
    assert "not those under 'ema'" in checkpoint.notes[0]
    problem = checkpoint.problem(samples=8)
    assert problem.notes == list(checkpoint.notes)
    assert problem.restricted(["1.bias"]).notes == list(checkpoint.notes)
    chosen = load_checkpoint(str(tmp_path / "w.th"), **FOREIGN, weights="ema")
    assert torch.equal(chosen.model[1].bias, model[1].bias + 1)
    assert chosen.notes == ()
