"""What the loss of a split is: a weighted mean over all terms, whatever the batches."""

import functools

import nets
import pytest
import torch
import torch.nn.functional as F
from differences import hessian, weighted
from torch import Tensor, nn

from ssgd_analysis.curvature import (
    FisherOperator,
    GGNOperator,
    HessianOperator,
    MonteCarloFisherOperator,
    Options,
)
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.problem import Problem

N = 40
WEIGHT = torch.tensor([1.0, 20.0, 3.0], dtype=torch.float64)


def net(outputs: int = 3) -> nn.Module:
    with nets.seeded():
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def sorted_labels() -> Tensor:
    return torch.tensor([0] * 22 + [2] * 12 + [1] * 6)  # the heavy class in the last batch only


def ignored(label: int) -> Tensor:
    labels = sorted_labels()
    labels[torch.arange(N) % 5 == 3] = label
    labels[:4] = label
    return labels


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    """Divides by a count of positives: no mean over examples, and no loss of torch's."""
    each = F.cross_entropy(outputs, targets, reduction="none")
    return (each * (targets > 0)).sum() / (targets > 0).sum().clamp(min=1)


KNOWN = {
    "weights": (nn.CrossEntropyLoss(weight=WEIGHT), sorted_labels()),
    "functional": (functools.partial(F.cross_entropy, weight=WEIGHT), sorted_labels()),
    "own function": (lambda o, t: F.cross_entropy(o, t, weight=WEIGHT), sorted_labels()),
    "ignored": (nn.CrossEntropyLoss(), ignored(-100)),
    "ignored 255": (nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=255), ignored(255)),
    "by name": (nets.cross_entropy, ignored(-100)),
    "smoothed": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), sorted_labels()),
    "probabilities": (nn.CrossEntropyLoss(weight=WEIGHT), nets.randn(N, 3, seed=3).softmax(1)),
    "nll": (lambda o, t: F.nll_loss(o.log_softmax(1), t, WEIGHT), sorted_labels()),
    "bce": (
        nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=WEIGHT),
        (nets.randn(N, 3, seed=4) > 0.5).double(),
    ),
    "mse": (nn.MSELoss(), nets.randn(N, 3, seed=5)),
    "huber": (nn.HuberLoss(delta=0.3), nets.randn(N, 3, seed=5)),
    "multilabel": (
        nn.MultiLabelSoftMarginLoss(weight=WEIGHT),
        (nets.randn(N, 3, seed=4) > 0.5).double(),
    ),
    "batchmean": (
        lambda o, t: F.kl_div(o.log_softmax(1), t, reduction="batchmean"),
        nets.randn(N, 3, seed=3).softmax(1),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("order", ["given", "reversed"])
def test_one_of_torchs_losses_is_the_mean_over_all_terms(name, order):
    (loss, targets), model = KNOWN[name], net()
    inputs = nets.randn(N, 4)
    if order == "reversed":
        inputs, targets = inputs.flip(0), targets.flip(0)
    whole, slope = hessian(model, lambda m: loss(m(inputs), targets))
    value = float(loss(model(inputs), targets).detach())
    for size in (N, 16, 7):
        problem = Problem(model, loss, list(zip(inputs.split(size), targets.split(size))))  # noqa: B905
        assert problem.mean_loss() == pytest.approx(value, rel=1e-12)
        found = torch.cat([part.reshape(-1) for part in problem.gradient()])
        torch.testing.assert_close(found, slope, rtol=1e-9, atol=1e-11)
        for micro in (None, 3):
            operator = HessianOperator(problem, options=Options(micro_batch=micro))
            assert operator.engine.plan.micro_batch == (micro or size)
            dense = operator @ torch.eye(problem.n_parameters, dtype=torch.float64)
            torch.testing.assert_close(dense, whole, rtol=1e-6, atol=1e-8)
        assert not problem.notes


def example_gradients(model: nn.Module, targets: Tensor, weights: Tensor) -> Tensor:
    """√w_i times each example's gradient, of weights that sum to one; those that count."""
    rows = []
    for x, y, w in zip(nets.randn(N, 4), targets, weights / weights.sum(), strict=True):
        if w:
            loss = F.cross_entropy(model(x[None]), y[None])
            parts = torch.autograd.grad(loss, list(model.parameters()))
            rows.append(w.sqrt() * torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


@pytest.mark.parametrize("size", [N, 16, 7])
@pytest.mark.parametrize("micro", [None, 3])
def test_fisher_weighs_examples_as_the_loss_does(size, micro):
    model, targets = net(), ignored(-100)
    counts = targets >= 0
    weights = torch.where(counts, WEIGHT[targets.clamp(min=0)], 0)
    rows = example_gradients(model, targets, weights)
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    batches = list(zip(nets.randn(N, 4).split(size), targets.split(size)))  # noqa: B905
    options = Options(micro_batch=micro)
    problem = Problem(model, loss, batches)
    eye = torch.eye(problem.n_parameters, dtype=torch.float64)
    for way in ("graph", "linear"):
        fisher = FisherOperator(problem, options=Options(strategy=way, micro_batch=micro))
        torch.testing.assert_close(fisher @ eye, rows.T @ rows)
    ggn = GGNOperator(problem, options=options) @ eye
    sampled = MonteCarloFisherOperator(problem, draws=20_000, options=options)
    torch.testing.assert_close(sampled @ eye, ggn, rtol=0, atol=0.05 * float(ggn.abs().max()))


def test_metrics_of_example_gradients_weigh_them_too():
    model, targets = net(), ignored(-100)
    weights = torch.where(targets >= 0, WEIGHT[targets.clamp(min=0)], 0)
    shares = weights / weights.sum()
    rows = example_gradients(model, targets, weights)
    mean = (shares[shares > 0].sqrt()[:, None] * rows).sum(0)
    effective = 1 / float(shares.square().sum())
    truth = float(rows.square().sum() - mean.square().sum()) * effective / (effective - 1)
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    for size in (N, 16, 7):
        batches = list(zip(nets.randn(N, 4).split(size), targets.split(size)))  # noqa: B905
        found = METRICS["gradient_covariance_trace"](Problem(model, loss, batches))
        assert found.value == pytest.approx(truth, rel=1e-9)


def test_an_unknown_loss_that_is_no_mean_stays_whole_and_says_so():
    model, targets = net(), sorted_labels()
    batches = list(zip(nets.randn(N, 4).split(16), targets.split(16)))  # noqa: B905
    truth, _ = hessian(model, weighted(lambda m, b: focal(m(b[0]), b[1]), batches, [16, 16, 8]))
    problem = Problem(model, focal, batches)
    for micro in (None, 3):
        operator = HessianOperator(problem, options=Options(micro_batch=micro))
        dense = operator @ torch.eye(problem.n_parameters, dtype=torch.float64)
        torch.testing.assert_close(dense, truth, rtol=1e-6, atol=1e-8)
        assert operator.engine.plan.micro_batch == 16
    assert "belong to batches of 8 to 16 examples" in problem.notes[0]
    with pytest.raises(InputError, match="mean of its examples' losses"):
        _ = FisherOperator(problem) @ torch.ones(problem.n_parameters, dtype=torch.float64)


def test_an_unknown_loss_that_is_a_mean_is_cut():
    problem = Problem(
        net(), lambda o, t: ((o - t) ** 4).mean(), [(nets.randn(N, 4), nets.randn(N, 3))]
    )
    assert problem.divisible
    assert problem.cut(7) is not None
    assert not problem.notes


def test_halves_that_agree_by_chance_do_not_hide_pieces_that_do_not():
    # classes alternate: halves weigh the same, single examples do not
    targets = torch.arange(N) % 2

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        weight = WEIGHT[labels]
        return (weight * F.cross_entropy(outputs, labels, reduction="none")).sum() / weight.sum()

    problem = Problem(net(), loss, [(nets.randn(N, 4), targets)])
    assert problem.divisible
    assert problem.cut(3) is None
    assert problem.cut(10) is not None


class Mixing(nn.Module):
    """Examples see one another; at zero weights of the last layer their losses do not show it."""

    def __init__(self) -> None:
        super().__init__()
        with nets.seeded():
            self.first, self.last = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(torch.tanh(hidden - hidden.mean(0)))


def test_a_model_that_mixes_examples_is_not_cut_even_where_losses_agree():
    problem = Problem(Mixing(), nn.CrossEntropyLoss(), [(nets.randn(N, 4), sorted_labels())])
    assert problem.cut(8) is None
    assert "belong to batches" in problem.notes[0]


@pytest.mark.parametrize("loss", [nn.MSELoss(reduction="sum"), lambda o, t: ((o - t) ** 2).sum()])
def test_sums_are_refused(loss):
    batches = [(nets.randn(8, 4), nets.randn(8, 3))]
    with pytest.raises(InputError, match="sum over the batch"):
        Problem(net(), loss, batches).check(deterministic=False)


def test_batches_without_a_label_that_counts_count_nothing():
    model, targets = net(), sorted_labels()
    targets[:16] = -100
    batches = list(zip(nets.randn(N, 4).split(8), targets.split(8)))  # noqa: B905
    problem = Problem(model, nn.CrossEntropyLoss(), batches)
    truth = F.cross_entropy(model(nets.randn(N, 4)), targets)
    assert problem.mean_loss() == pytest.approx(float(truth.detach()), rel=1e-12)
    assert problem.n_samples == N
    with pytest.raises(InputError, match="the loss ignores every target"):
        Problem(model, nn.CrossEntropyLoss(), batches[:2]).mean_loss()


@pytest.mark.parametrize("label", [-100, 255])
def test_accuracy_counts_labelled_positions_only(label):
    logits = torch.randn(4, 3, 5, generator=nets.generator(), dtype=torch.float64)
    targets = logits.argmax(1)
    targets[:, 2:] = label  # all kept labels are right

    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.by

    loss = nn.CrossEntropyLoss(ignore_index=label)
    assert Problem(Shift(), loss, [(logits, targets)]).evaluate()[1] == 1.0
    halves = list(zip(logits.split(1), targets.split(1)))  # noqa: B905
    assert Problem(Shift(), loss, halves).evaluate()[1] == 1.0
    margin = METRICS["margin"](Problem(Shift(), loss, halves))
    assert margin.details["wrong"] == 0.0


def test_accuracy_is_over_labels_not_over_class_weights():
    model, targets = net(), sorted_labels()
    right = (model(nets.randn(N, 4)).argmax(1) == targets).double().mean()
    batches = list(zip(nets.randn(N, 4).split(16), targets.split(16)))  # noqa: B905
    problem = Problem(model, nn.CrossEntropyLoss(weight=WEIGHT), batches)
    assert problem.evaluate()[1] == pytest.approx(float(right))


# --- what an example is ---


class TimeMajor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with nets.seeded():
            self.rnn, self.out = nn.GRU(3, 4).double(), nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][-1])


def smooth(model: nn.Module, batch: tuple) -> Tensor:
    """No loss of torch's own, so that batches weigh by their examples."""
    return (
        model(batch[0]).logsumexp(1) - model(batch[0])[torch.arange(len(batch[1])), batch[1]]
    ).mean()


def time_major() -> list[tuple[Tensor, Tensor]]:
    x, y = nets.randn(5, 20, 3), torch.arange(20) % 2
    return [(x[:, i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]


@pytest.mark.parametrize("count", [None, lambda batch: len(batch[1])])
def test_sequences_count_by_their_targets(count):
    model, batches = TimeMajor(), time_major()
    truth, _ = hessian(model, weighted(smooth, batches, [8, 8, 4]))
    problem = Problem(model, smooth, batches, count=count)
    assert problem.n_samples == 20
    dense = HessianOperator(problem) @ torch.eye(problem.n_parameters, dtype=torch.float64)
    torch.testing.assert_close(dense, truth, rtol=1e-6, atol=1e-8)
    assumed = [note for note in problem.notes if "assumed" in note]
    assert bool(assumed) == (count is None)


def test_the_order_of_keys_changes_nothing():
    def loss(model: nn.Module, batch: dict) -> Tensor:
        return (model(batch["x"]) - batch["extra"].mean()).square().mean()

    model = net()
    one = [{"extra": nets.randn(3), "x": nets.randn(n, 4), "mask": nets.randn(n)} for n in (6, 2)]
    other = [dict(reversed(batch.items())) for batch in one]
    first, second = Problem(model, loss, one), Problem(model, loss, other)
    assert first.n_samples == second.n_samples == 8
    assert first.mean_loss() == second.mean_loss()


def test_a_loss_may_say_what_it_is_the_mean_of():
    def loss(model: nn.Module, batch: Tensor) -> tuple[Tensor, int]:
        pairs = model(batch).square().reshape(-1, 2, 3).sum((1, 2))  # an example is two rows
        return pairs.mean(), len(pairs)

    model, rows = net(), nets.randn(14, 4)
    problem = Problem(model, loss, [rows[:10], rows[10:]])
    assert problem.n_samples == 7
    assert problem.mean_loss() == pytest.approx(float(loss(model, rows)[0].detach()), rel=1e-12)


@pytest.mark.parametrize("count", [lambda batch: 1 / 0, lambda batch: 2.5, lambda batch: "many"])
def test_a_count_that_counts_nothing_is_refused(count):
    with pytest.raises(InputError, match="count"):
        Problem(net(), smooth, time_major(), count=count)


def bags() -> tuple[nn.Module, list, list]:
    with nets.seeded():
        model = nn.EmbeddingBag(9, 3).double()
    text = torch.randint(9, (17,), generator=nets.generator())
    starts, labels = torch.tensor([0, 2, 5, 6, 10, 12]), torch.arange(6) % 3
    return model, [(labels, text, starts)], [6]


def graphs() -> tuple[nn.Module, list, list]:
    class Graphs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
            h = torch.tanh(self.a(x))
            h = h.index_add(0, edges[1], h[edges[0]])
            pooled = h.new_zeros(int(graph.max()) + 1, 5)
            return self.b(pooled.index_add(0, graph, h))

    with nets.seeded():
        model = Graphs().double()
    batches = []
    for seed, sizes in enumerate(((3, 4, 5), (2, 6))):
        graph = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        ring = torch.arange(len(graph))
        edges = torch.stack([ring, (ring + 1) % len(graph)])
        batches.append(
            (torch.arange(len(sizes)) % 2, nets.randn(len(graph), 4, seed=seed), edges, graph)
        )
    return model, batches, [3, 2]


@pytest.mark.parametrize("made", [bags, graphs])
@pytest.mark.parametrize("known", [True, False])
def test_batches_that_cannot_be_cut_are_measured_whole(made, known):
    model, batches, counts = made()

    def loss(model: nn.Module, batch: tuple) -> Tensor:
        labels, *given = batch
        outputs = model(*given)
        if known:
            return F.cross_entropy(outputs, labels)
        return (outputs.logsumexp(1) - outputs[torch.arange(len(labels)), labels]).mean()

    truth, _ = hessian(model, weighted(loss, batches, counts))
    problem = Problem(model, loss, batches, count=lambda batch: len(batch[0]))
    assert problem.n_samples == sum(counts)
    operator = HessianOperator(problem, options=Options(micro_batch=1))
    operator.prepare(20)
    dense = operator @ torch.eye(problem.n_parameters, dtype=torch.float64)
    torch.testing.assert_close(dense, truth, rtol=1e-6, atol=1e-8)
    assert bool(problem.notes) != known  # whether the number may belong to these batches


def test_packed_sequences_and_lists_of_images_are_measured():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with nets.seeded():
                self.rnn, self.out = nn.GRU(3, 4).double(), nn.Linear(4, 2).double()

        def forward(self, packed: nn.utils.rnn.PackedSequence) -> Tensor:
            return self.out(self.rnn(packed)[1][-1])

    rows = [nets.randn(length, 3, seed=length) for length in (5, 2, 4)]
    packed = nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
    labels = torch.tensor([0, 1, 1])

    def loss(model: nn.Module, batch: tuple) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    problem = Problem(Packed(), loss, [(packed, labels)])
    assert problem.n_samples == 3
    assert problem.mean_loss() == pytest.approx(
        float(loss(problem.model, (packed, labels)).detach())
    )
    HessianOperator(problem).prepare(20)

    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with nets.seeded():
                self.conv = nn.Conv2d(1, 2, 3).double()

        def forward(self, images: list[Tensor]) -> Tensor:
            return torch.stack([self.conv(image[None]).mean((0, 2, 3)) for image in images])

    images = [nets.randn(1, 4 + size, 6, seed=size) for size in range(3)]
    problem = Problem(Images(), loss, [(images, labels)])
    assert problem.n_samples == 3
    HessianOperator(problem).prepare(20)
