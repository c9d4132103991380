"""The truth, written a second time: slow, literal float64 readings of each definition.

Everything works on one flat weight vector and one full batch, by other means than the package
(``torch.func.functional_call``, explicit matrices, one example at a time).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import nets
import numpy as np
import scipy.optimize
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssgd_analysis import seeds
from ssgd_analysis.flatness import Measurement
from ssgd_analysis.weights import Noise


def trainable(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def flat_weights(model: nn.Module) -> Tensor:
    return torch.cat([p.reshape(-1) for p in trainable(model).values()])


def output_function(case: nets.Case, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """Outputs in evaluation mode as a function of the flat weights (P,)."""
    model, shapes = nets.evaluated(case.model), trainable(case.model)

    def outputs(flat: Tensor) -> Tensor:
        pieces = flat.split([p.numel() for p in shapes.values()])
        named = {n: v.reshape(p.shape) for (n, p), v in zip(shapes.items(), pieces, strict=True)}
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            return functional_call(model, named, (inputs,))

    return outputs


def loss_function(case: nets.Case) -> Callable[[Tensor], Tensor]:
    """The mean loss over all examples, as one batch, as a function of the flat weights."""
    outputs = output_function(case, case.inputs)
    return lambda flat: case.loss(outputs(flat), case.targets)


def loss_at(case: nets.Case, flat: Tensor) -> float:
    with torch.no_grad():
        return float(loss_function(case)(flat))


def gradient(case: nets.Case, flat: Tensor | None = None) -> Tensor:
    """∇L, shape (P,)."""
    flat = flat_weights(case.model) if flat is None else flat
    return torch.autograd.functional.jacobian(loss_function(case), flat)


def hessian(case: nets.Case) -> Tensor:
    """∇²L, shape (P, P), row by row."""
    return torch.autograd.functional.hessian(loss_function(case), flat_weights(case.model))


def ggn(case: nets.Case) -> Tensor:
    """Jᵀ H_out J with the explicit Jacobian of all outputs and Hessian of the loss by them."""
    outputs, flat = output_function(case, case.inputs), flat_weights(case.model)
    values = outputs(flat)
    jacobian = torch.autograd.functional.jacobian(lambda w: outputs(w).reshape(-1), flat)
    inner = torch.autograd.functional.hessian(
        lambda f: case.loss(f.reshape(values.shape), case.targets), values.detach().reshape(-1)
    )
    return jacobian.T @ inner @ jacobian


def example_gradients(case: nets.Case) -> Tensor:
    """One gradient an example, each from its own batch of one, shape (N, P)."""
    singles = [
        nets.Case(case.model, case.loss, x[None], y[None])
        for x, y in zip(case.inputs, case.targets, strict=True)
    ]
    return torch.stack([gradient(single) for single in singles])


def fisher(case: nets.Case) -> Tensor:
    """(1/N) Σ g_i g_iᵀ."""
    rows = example_gradients(case)
    return rows.T @ rows / len(rows)


def covariance(case: nets.Case) -> Tensor:
    """(1/N) Σ (g_i − ḡ)(g_i − ḡ)ᵀ."""
    rows = example_gradients(case)
    away = rows - rows.mean(dim=0)
    return away.T @ away / len(rows)


def layers(case: nets.Case) -> dict[str, slice]:
    """Where each module's own parameters stand in the flat vector, written by hand."""
    found: dict[str, slice] = {}
    start = 0
    for name, parameter in trainable(case.model).items():
        owner = ".".join(name.split(".")[:-1]) or name
        first = found[owner].start if owner in found else start
        found[owner] = slice(first, start + parameter.numel())
        start += parameter.numel()
    return found


OPERATORS = {"hessian": hessian, "ggn": ggn, "fisher": fisher, "covariance": covariance}


def noise_draws(case: nets.Case, noise: Noise, sigma: float, draws: int, seed: int) -> list[Tensor]:
    """The perturbations that all metrics share: parameter by parameter, draw by draw."""
    stream = seeds.generator(seed, "perturbations")
    weights = trainable(case.model).values()
    return [
        sigma * torch.cat([draw(case, noise, w, stream).reshape(-1) for w in weights])
        for _ in range(draws)
    ]


def by_feature(case: nets.Case, weight: Tensor) -> bool:
    """Whether a weight is an embedding's alone: its output units are columns, not rows."""
    holders = [
        module
        for module in case.model.modules()
        for own in module._parameters.values()
        if own is not None and own.data_ptr() == weight.data_ptr()
    ]
    return bool(holders) and all(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in holders)


def draw(case: nets.Case, noise: Noise, weight: Tensor, stream: torch.Generator) -> Tensor:
    """Noise of one parameter; by hand, column by column, where filters are an embedding's."""
    if noise.scale != "filter" or not by_feature(case, weight):
        return noise.sample(weight, stream)
    law = "gaussian" if noise.law == "sphere" else noise.law
    raw = Noise(law=law, scale="none").sample(weight, stream)
    columns = []
    for own, entries in zip(weight.detach().T, raw.T, strict=True):
        if noise.law == "sphere":
            entries = entries / entries.square().mean().sqrt()
        columns.append(entries * own.square().mean().sqrt())
    return torch.stack(columns, dim=1)


def expected(case: nets.Case, perturbations: list[Tensor]) -> float:
    """Mean over z of ½[L(w + z) + L(w − z)] − L(w)."""
    w, base = flat_weights(case.model), loss_at(case, flat_weights(case.model))
    rises = [(loss_at(case, w + z) + loss_at(case, w - z)) / 2 - base for z in perturbations]
    return sum(rises) / len(rises)


def sam(case: nets.Case, rho: float) -> float:
    """L(w + ρ g/‖g‖) − L(w)."""
    w, g = flat_weights(case.model), gradient(case)
    return loss_at(case, w + rho * g / g.norm()) - loss_at(case, w)


def reviews(steps: int) -> list[int]:
    """w_j = ⌈p_j N⌉ of Croce and Hein 2020, in exact arithmetic."""
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    return [math.ceil(share * steps) for share in p]


def apgd(case: nets.Case, scale: Tensor, rho: float, norm: str, steps: int) -> float:
    """Algorithm 1 of Croce and Hein 2020 on u in L(w + scale∘u), ‖u‖ ≤ ρ; the rise found."""
    w = flat_weights(case.model)

    def loss(u: Tensor) -> float:
        return loss_at(case, w + scale * u)

    def direction(u: Tensor) -> Tensor:
        slope = scale * gradient(case, w + scale * u)
        return slope.sign() if norm == "linf" else slope / slope.norm()

    def inside(u: Tensor) -> Tensor:
        if norm == "linf":
            return u.clamp(-rho, rho)
        return u if u.norm() <= rho else u * (rho / u.norm())

    eta = 2 * rho
    points = [torch.zeros_like(w), inside(eta * direction(torch.zeros_like(w)))]
    values = [loss(point) for point in points]
    top, place = max(zip(values, points, strict=True), key=lambda one: one[0])
    since = reviews(steps)
    etas, tops = [eta], [values[0]]
    while len(points) <= steps:
        k = len(points) - 1  # x_k is the last
        if k in since[1:]:
            j = since.index(k)
            rises = sum(values[i + 1] > values[i] for i in range(since[j - 1], k))
            same = etas[-1] == eta and tops[-1] == top and j > 1
            etas.append(eta)
            tops.append(top)
            if rises < 0.75 * (k - since[j - 1]) or same:
                eta /= 2
                points[k], values[k] = place, top
        x, before = points[k], points[k - 1]
        z = inside(x + eta * direction(x))
        points.append(inside(x + 0.75 * (z - x) + 0.25 * (x - before)))
        values.append(loss(points[-1]))
        if values[-1] > top:
            top, place = values[-1], points[-1]
    return top - loss(torch.zeros_like(w))


def adaptive_worst(case: nets.Case, rho: float, steps: int, norm: str = "l2") -> float:
    return apgd(case, flat_weights(case.model).abs(), rho, norm, steps)


def worst_case(case: nets.Case, rho: float, steps: int, norm: str = "l2") -> float:
    return apgd(case, torch.ones_like(flat_weights(case.model)), rho, norm, steps)


def m_sharpness(case: nets.Case, rho: float, m: int, steps: int) -> float:
    """The mean over examples of the worst case of the m examples that each belongs to."""
    total = 0.0
    for x, y in zip(case.inputs.split(m), case.targets.split(m), strict=True):
        total += len(y) * worst_case(nets.Case(case.model, case.loss, x, y), rho, steps)
    return total / len(case.targets)


def keskar(
    case: nets.Case, epsilon: float, iterations: int, columns: Tensor | None = None
) -> float:
    """100 (max L(w + Az) − L) / (1 + L) over the box, by L-BFGS-B in units of its half widths."""
    w = flat_weights(case.model)
    A = torch.eye(len(w), dtype=w.dtype) if columns is None else columns
    half = epsilon * ((torch.linalg.pinv(A) @ w).abs() + 1)
    unit = (half * (A.T @ gradient(case))).abs().mean()
    seen = []

    def objective(t: np.ndarray) -> tuple[float, np.ndarray]:
        at = w + A @ (half * torch.from_numpy(t))
        seen.append(loss_at(case, at))
        slope = half * (A.T @ gradient(case, at)) / unit
        return -seen[-1] / float(unit), -slope.numpy()

    scipy.optimize.minimize(
        objective, np.zeros(len(half)), jac=True, method="L-BFGS-B", bounds=[(-1, 1)] * len(half),
        options={"maxiter": iterations, "ftol": 0, "gtol": 0},
    )  # fmt: skip
    base = loss_at(case, w)
    return 100 * (max(seen) - base) / (1 + base)


def sphere_maximum(b: Tensor, A: Tensor, rho: float) -> float:
    """max of b·u + ½ uᵀAu over ‖u‖ = ρ, by its secular equation: (λ − A) u = b, λ > λ_max."""
    values, basis = torch.linalg.eigh(A)
    c = basis.T @ b
    low, high = float(values[-1]), float(values[-1] + b.norm() / rho)
    for _ in range(200):
        middle = (low + high) / 2
        too_long = float((c / (middle - values)).norm()) > rho
        low, high = (middle, high) if too_long else (low, middle)
    u = basis @ (c / (high - values))
    return float(b @ u + u @ A @ u / 2)


def fisher_rao(case: nets.Case) -> float:
    """(1/N) Σ ⟨g_i, w⟩²."""
    return float((example_gradients(case) @ flat_weights(case.model)).square().mean())


def eigenvalues(case: nets.Case) -> Tensor:
    """Ascending."""
    return torch.linalg.eigvalsh(hessian(case))


def negative_mass(case: nets.Case) -> float:
    """The share of eigenvalues below −c, c a thousandth of the largest |λ|."""
    values = eigenvalues(case)
    return float((values < -1e-3 * values.abs().max()).double().mean())


def covariance_trace(case: nets.Case) -> float:
    """1/(N − 1) Σ ‖g_i − ḡ‖²."""
    return float(example_gradients(case).var(dim=0, correction=1).sum())


def tensor_blocks(case: nets.Case) -> list[tuple[float, Tensor]]:
    """‖w‖² and the Hessian's diagonal block of each parameter tensor."""
    matrix, found, start = hessian(case), [], 0
    for weight in trainable(case.model).values():
        own = slice(start, start + weight.numel())
        found.append((float(weight.square().sum()), matrix[own, own]))
        start = own.stop
    return found


def relative_flatness(case: nets.Case) -> float:
    """Σ_{s,s'} ⟨w_s, w_s'⟩ Tr(H_{s,s'}) of the last weight matrix, pair by pair."""
    named = list(trainable(case.model).values())
    position = max(i for i, weight in enumerate(named) if weight.ndim >= 2)
    start = sum(weight.numel() for weight in named[:position])
    rows = named[position].flatten(1)
    count, width = rows.shape
    block = hessian(case)[start:, start:][: count * width, : count * width]
    total = 0.0
    for s in range(count):
        for t in range(count):
            part = block[s * width : (s + 1) * width, t * width : (t + 1) * width]
            total += float(rows[s] @ rows[t] * part.trace())
    return total


def lpf(case: nets.Case, perturbations: list[Tensor]) -> float:
    """Mean over z of L(w + z) and L(w − z)."""
    w = flat_weights(case.model)
    values = [loss_at(case, w + sign * z) for z in perturbations for sign in (1, -1)]
    return sum(values) / len(values)


def s_sgd_draws(case: nets.Case) -> list[Tensor]:
    """S-SGD's own noise at c = 0.2, eight draws: none on parameters with one axis."""
    axes = torch.cat([torch.full((p.numel(),), p.ndim) for p in trainable(case.model).values()])
    noise = Noise(law="binary", scale="filter")
    return [n * (axes > 1) for n in noise_draws(case, noise, 0.2, 8, seed=3)]


def asymmetry(case: nets.Case, perturbations: list[Tensor]) -> float:
    """Mean over n of |½[L(w + n) − L(w − n)]|."""
    w = flat_weights(case.model)
    values = [abs(loss_at(case, w + n) - loss_at(case, w - n)) / 2 for n in perturbations]
    return sum(values) / len(values)


def accuracy_at(case: nets.Case, flat: Tensor) -> float | None:
    """The share of examples whose largest output is the right class's, counted one by one."""
    if case.targets.is_floating_point():
        return None
    outputs = output_function(case, case.inputs)(flat).detach()
    rows = outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
    right = case.targets.reshape(-1).tolist()
    hits = [int(row.argmax()) == y for row, y in zip(rows, right, strict=True)]
    return sum(hits) / len(hits)


def damage(case: nets.Case, flats: list[Tensor]) -> float:
    """The mean accuracy lost at other weights; the mean rise of the loss where there is none."""
    w = flat_weights(case.model)
    before = accuracy_at(case, w)
    if before is None:
        return sum(loss_at(case, flat) - loss_at(case, w) for flat in flats) / len(flats)
    return sum(before - accuracy_at(case, flat) for flat in flats) / len(flats)


def noise_robustness(case: nets.Case, perturbations: list[Tensor]) -> float:
    w = flat_weights(case.model)
    return damage(case, [w + sign * z for z in perturbations for sign in (1, -1)])


def quantization_drop(case: nets.Case, bits: int) -> float:
    """Each entry of each filter to the nearest multiple of the filter's step."""
    pieces = []
    for weight in trainable(case.model).values():
        if weight.ndim == 1:
            pieces.append(weight)
            continue
        columns = by_feature(case, weight)
        rows = []
        for row in weight.T if columns else weight.flatten(1):
            step = max(abs(float(entry)) for entry in row) / (2 ** (bits - 1) - 1)
            near = [step * round(float(entry) / step) for entry in row]
            rows.append(torch.tensor(near, dtype=row.dtype))
        pieces.append((torch.stack(rows).T if columns else torch.stack(rows)).flatten())
    return damage(case, [torch.cat(pieces)])


def first_crossing(rise: Callable[[float], float], level: float) -> float:
    """Where a function of a distance first rises above a level: steps of 3%, then bisection."""
    high = 0.003
    while rise(high) <= level:
        high *= 1.03
    low = high / 1.03
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if rise(middle) > level else (middle, high)
    return low


def pac_bayes_sigma(case: nets.Case, target: float, draws: int, seed: int) -> float:
    """1/σ² by the rise of the loss."""
    unit = noise_draws(case, Noise(law="gaussian", scale="weight"), 1.0, draws, seed)
    sigma = first_crossing(lambda sigma: expected(case, [sigma * z for z in unit]), target)
    return 1 / sigma**2


def volume(case: nets.Case, rise: float, directions: int, seed: int) -> float:
    """Median over directions of the mean of both sides' distances."""
    stream, w = seeds.generator(seed, "volume"), flat_weights(case.model)
    noise, base, found = Noise(law="sphere", scale="filter"), loss_at(case, w), []
    for _ in range(directions):
        parts = [(draw(case, noise, p, stream), p.ndim) for p in trainable(case.model).values()]
        d = torch.cat([(part if axes > 1 else 0 * part).reshape(-1) for part, axes in parts])
        sides = [
            first_crossing(lambda a, d=sign * d: loss_at(case, w + a * d) - base, rise)
            for sign in (1, -1)
        ]
        found.append(sum(sides) / 2)
    return float(torch.tensor(found, dtype=torch.float64).quantile(0.5))


def local_entropy(case: nets.Case, gamma: float, draws: int, seed: int) -> float:
    """−log of the mean over Gaussian z of exp(L(w) − L(w ± z))."""
    w, values = flat_weights(case.model), []
    for draw in range(draws):
        stream = seeds.generator(seed, f"local_entropy {draw}")
        parts = [
            torch.empty_like(p).normal_(generator=stream) for p in trainable(case.model).values()
        ]
        z = torch.cat([part.reshape(-1) for part in parts]) / gamma**0.5
        values += [loss_at(case, w + z), loss_at(case, w - z)]
    weights = (loss_at(case, w) - torch.tensor(values, dtype=torch.float64)).exp()
    return -float(weights.mean().log())


def input_jacobian(case: nets.Case) -> float:
    """Mean over examples of ‖∂f/∂x‖_F, one example at a time."""
    w, norms = flat_weights(case.model), []
    for x in case.inputs:
        function = lambda one: output_function(case, one)(w)  # noqa: E731
        norms.append(float(torch.autograd.functional.jacobian(function, x[None]).norm()))
    return sum(norms) / len(norms)


def margin(case: nets.Case) -> float:
    """The mean margin over the root mean square distance of the logits from their mean."""
    outputs = output_function(case, case.inputs)(flat_weights(case.model)).detach()
    rows = outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
    margins, squares = [], []
    for row, y in zip(rows.tolist(), case.targets.reshape(-1).tolist(), strict=True):
        mean = sum(row) / len(row)
        margins.append(row[y] - max(value for j, value in enumerate(row) if j != y))
        squares.append(sum((value - mean) ** 2 for value in row))
    count = len(margins)
    return sum(margins) / count / (sum(squares) / count) ** 0.5


INTEGERS = ("embedding", "attention")  # nets of integer inputs
NO_LABELS = ("regression", "quadratic")


@dataclass(frozen=True)
class Truth:
    """What a metric must give: its settings, the literal value, and how far off is still right.

    ``refused``: the nets that it can't be measured on; ``needs``: the settings without which it
    can't be measured on untrained ones.
    """

    value: Callable[[nets.Case], float]
    settings: dict[str, object] = field(default_factory=dict)
    tolerance: Callable[[Measurement], float] = lambda found: 1e-9 * (1 + abs(found.value))
    refused: tuple[str, ...] = ()
    needs: dict[str, object] = field(default_factory=dict)


METRICS = {
    # a unit vector's quotient is off by at most its residual, 1e-7 of the value here
    "lambda_max": Truth(
        lambda case: float(torch.linalg.eigvalsh(hessian(case))[-1]),
        {"tol": 1e-7},
        lambda found: 1e-7 * abs(found.value),
    ),
    # random probes: five standard errors of 256 of them
    "trace": Truth(
        lambda case: float(hessian(case).trace()), {"probes": 256}, lambda found: 5 * found.stderr
    ),
    "expected": Truth(
        lambda case: expected(
            case, noise_draws(case, Noise(law="gaussian", scale="weight"), 0.2, 8, seed=3)
        ),
        {"sigma": 0.2, "draws": 8, "seed": 3},
    ),
    "sam": Truth(lambda case: sam(case, 0.1), {"rho": 0.1}),
    # the ascents compare losses: rounding could tip a tie, and 1e-9 says that it did not
    "adaptive_worst": Truth(
        lambda case: adaptive_worst(case, 0.4, 9), {"rho": 0.4, "steps": 9, "starts": 1}
    ),
    "worst_case": Truth(
        lambda case: worst_case(case, 0.3, 9), {"rho": 0.3, "steps": 9, "starts": 1}
    ),
    "m_sharpness": Truth(
        lambda case: m_sharpness(case, 0.2, 3, 5), {"rho": 0.2, "m": 3, "steps": 5, "starts": 1}
    ),
    # per cent, and the search amplifies rounding
    "keskar": Truth(
        lambda case: keskar(case, 0.01, 6),
        {"epsilon": 0.01, "iterations": 6},
        lambda found: 1e-7 * (1 + abs(found.value)),
    ),
    "lpf": Truth(
        lambda case: lpf(
            case, noise_draws(case, Noise(law="gaussian", scale="none"), 0.2, 8, seed=3)
        ),
        {"sigma": 0.2, "draws": 8, "seed": 3},
    ),
    "local_entropy": Truth(
        lambda case: local_entropy(case, 25.0, 8, seed=3),
        {"gamma": 25.0, "draws": 8, "steps": 1, "seed": 3},
    ),
    "symmetric_gap": Truth(
        lambda case: expected(case, s_sgd_draws(case)),
        {"c": 0.2, "draws": 8, "seed": 3},
    ),
    "asymmetry": Truth(
        lambda case: asymmetry(case, s_sgd_draws(case)),
        {"c": 0.2, "draws": 8, "seed": 3},
    ),
    # the bracket of sigma is 1e-3 wide, and sigma its middle
    "pac_bayes_sigma": Truth(
        lambda case: pac_bayes_sigma(case, 0.3, 4, seed=3),
        {"target": 0.3, "of": "loss", "draws": 4, "tolerance": 1e-3, "seed": 3},
        lambda found: 1.01e-3 * found.value,
        needs={"of": "loss"},
    ),
    "input_jacobian": Truth(input_jacobian, refused=INTEGERS),
    "margin": Truth(margin, refused=NO_LABELS),
    "quantization_drop": Truth(lambda case: quantization_drop(case, 3), {"bits": 3}),
    "noise_robustness": Truth(
        lambda case: noise_robustness(
            case, noise_draws(case, Noise(law="gaussian", scale="weight"), 0.5, 8, seed=3)
        ),
        {"sigma": 0.5, "draws": 8, "seed": 3},
    ),
    # the bracket of each distance is 1e-3 wide
    "volume": Truth(
        lambda case: volume(case, 0.1, 4, seed=3),
        {"rise": 0.1, "directions": 4, "tolerance": 1e-3, "seed": 3},
        lambda found: 1e-3 * found.value,
    ),
    "fisher_rao": Truth(fisher_rao),
    "trace_per_parameter": Truth(
        lambda case: float(eigenvalues(case).mean()),
        {"probes": 256},
        lambda found: 5 * found.stderr,
    ),
    # each eigenvalue is off by at most its residual, 1e-7 of it
    "spectral_norm_ratio": Truth(
        lambda case: float(eigenvalues(case)[-1] / eigenvalues(case)[-5]),
        {"tol": 1e-7},
        lambda found: 3e-7 * found.value,
    ),
    "frobenius": Truth(
        lambda case: float(hessian(case).norm()), {"probes": 256}, lambda found: 5 * found.stderr
    ),
    "density_moments": Truth(
        lambda case: float(eigenvalues(case).square().mean()),
        {"probes": 256},
        lambda found: 5 * found.stderr,
    ),
    # a node stands for all eigenvalues around it: what that leaves open is in the details
    "negative_mass": Truth(
        negative_mass,
        {},
        lambda found: max(
            found.details["highest"] - found.value, found.value - found.details["lowest"]
        ),
    ),
    "gradient_norm": Truth(lambda case: float(gradient(case).norm())),
    "gradient_covariance_trace": Truth(covariance_trace),
    "gradient_noise_scale": Truth(
        lambda case: covariance_trace(case) / float(gradient(case).square().sum())
    ),
    "w_h_w": Truth(
        lambda case: float(flat_weights(case.model) @ hessian(case) @ flat_weights(case.model))
    ),
    "trace_weighted": Truth(
        lambda case: float(flat_weights(case.model).square() @ hessian(case).diag()),
        {"probes": 256},
        lambda found: 5 * found.stderr,
    ),
    "layer_trace": Truth(
        lambda case: sum(square * float(block.trace()) for square, block in tensor_blocks(case)),
        {"probes": 256},
        lambda found: 5 * found.stderr,
    ),
    "layer_lambda_max": Truth(
        lambda case: max(
            square * float(torch.linalg.eigvalsh(block)[-1])
            for square, block in tensor_blocks(case)
        ),
        {"tol": 1e-7},
        lambda found: 1e-7 * abs(found.value),
    ),
    "relative_flatness": Truth(relative_flatness),
}


def curvature_slope(case: nets.Case, n: Tensor, step: float = 1e-5) -> Tensor:
    """½ ∇(nᵀHn) = ½ dH(w + t n)/dt n, by differences of dense Hessians: error ~ step⁴."""
    loss, w = loss_function(case), flat_weights(case.model)

    def difference(t: float) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            ahead, behind = (
                torch.autograd.functional.hessian(loss, w + sign * t * n) for sign in (1, -1)
            )
        return (ahead - behind) @ n / (2 * t)

    return (4 * difference(step) - difference(2 * step)) / 6
