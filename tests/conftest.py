"""What all tests share."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from ssgd_analysis.cli.main import main

from ssgd_analysis.flatness import METRICS

TESTS = Path(__file__).parent
SLOW = [
    (f"tests/{start.strip()}", tuple(quick.split()))
    for line in (TESTS / "slow.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for start, _, quick in [line.partition(" but ")]
]


def is_slow(node: str) -> bool:
    """Whether a line of ``slow.txt`` names this node and does not except it."""
    return any(
        node.startswith(start) and not any(part in node[len(start) :] for part in quick)
        for start, quick in SLOW
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``slow.txt`` names."""
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)


def pytest_configure(config: pytest.Config) -> None:
    """Search fewer random cases where slow tests are left out."""
    examples = 12 if config.option.markexpr == "not slow" else 60
    hypothesis.settings.register_profile("ours", max_examples=examples)
    hypothesis.settings.load_profile("ours")


@pytest.fixture
def only_metrics() -> Iterator[Callable[[set[str]], None]]:
    """Leave only some metrics in the table; it comes back in its order."""
    whole = dict(METRICS)

    def keep(names: set[str]) -> None:
        for name in whole.keys() - names:
            del METRICS[name]

    yield keep
    METRICS.clear()
    METRICS.update(whole)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two test processes on two cores: more threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Plans that tests measure are not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class Outcome:
    """Status and output of a command run in this process."""

    def __init__(self, status: int, out: str, err: str):
        self.status, self.out, self.err = status, out, err

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one error line."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, self.err
        assert self.err.splitlines()[-1] == lines[0], self.err
        return lines[0]


@pytest.fixture
def run(capsys) -> Callable[..., Outcome]:
    """Run ``ssgd-analyze`` in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Outcome(stop.value.code, out, err)

    return call


@pytest.fixture
def spawn() -> Callable[..., subprocess.Popen]:
    """Start ``ssgd-analyze`` as a process of its own, to be killed."""

    def start(*arguments: object, **options) -> subprocess.Popen:
        command = [sys.executable, "-m", "ssgd_analysis.cli.main", *map(str, arguments)]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
        )

    return start


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """A file with a stranger's model, data and losses, good and bad."""
    path = tmp_path / "strangers.py"
    path.write_text(
        '''
import torch
from torch import nn

class Tagger(nn.Module):
    """Integers in, a class for every position out; tied weights, a frozen and an unused one."""
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 6)
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 12)
        self.out.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
    def forward(self, tokens):
        print("a stranger's model prints")
        mixed = self.embed(tokens).cumsum(1) * self.frozen
        return self.out(torch.tanh(self.norm(mixed))).transpose(1, 2)

def tagger():
    return Tagger()

def tags():
    g = torch.Generator().manual_seed(1)
    x = torch.randint(12, (70, 5), generator=g)
    return (x[:50], x[:50].roll(1, 1)), (x[50:], x[50:].roll(1, 1))

def regression():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(60, 3, generator=g, dtype=torch.float64)
    y = x @ torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]], dtype=torch.float64).T
    pairs = list(zip(x, y))
    class Pairs(torch.utils.data.Dataset):
        def __init__(self, part): self.part = part
        def __len__(self): return len(self.part)
        def __getitem__(self, i): return self.part[i]
    return Pairs(pairs[:40]), Pairs(pairs[40:])

def linear(input_shape, num_outputs):
    return nn.Linear(input_shape[0], num_outputs)

def huber(outputs, targets):
    return nn.functional.huber_loss(outputs, targets)

def per_example(outputs, targets):
    return (outputs - targets).square().mean(dim=1)

def picky(outputs, targets):
    return (outputs @ targets.float()).mean()

def number(outputs, targets):
    return 1.0

def no_parameters():
    return nn.ReLU()

def not_a_model():
    return 3

def raises():
    raise KeyError("no such thing")

def empty():
    return (torch.zeros(0, 3), torch.zeros(0)), (torch.zeros(0, 3), torch.zeros(0))

def negative_labels():
    return (torch.randn(9, 3), torch.full((9,), -1)), (torch.randn(9, 3), torch.zeros(9).long())

def three_outputs():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def batchnorm():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))

def explodes(outputs, targets):
    return outputs.square().mean() * 1e30

value = 7
'''
    )
    return path
