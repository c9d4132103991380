"""Which tools give the right Hessian on which networks: errors against central differences.

Every tool gets each problem of ``everyday.py`` in its own documented way (model, loss, batches) and
makes the whole matrix by products with the identity. The truth is that of the loss of all
examples as one batch, for torch's losses their exact (weighted) mean: central differences of first
gradients in float64. Prints a Markdown table; ``--json FILE`` writes the numbers.

Example: python benchmarks/correctness.py --nets LSTM --tools ours curvlinops
"""

import argparse
import importlib.metadata
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from curvlinops import HessianLinearOperator
from everyday import NETS, Net, count
from pyhessian import hessian as pyhessian
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssgd_analysis import HessianOperator, InputError, Problem
from ssgd_analysis.curvature import Options
from ssgd_analysis.errors import first_line
from ssgd_analysis.sharpness import measure

try:  # optional: `pip install hessian-eigenthings==1.0.0a5`
    import hessian_eigenthings as eigenthings
except ImportError:
    eigenthings = None

DTYPES = {"float64": torch.float64, "float32": torch.float32}
# A hundred times what rounding leaves here, of the right second derivatives at least.
WRONG = {"float64": 1e-7, "float32": 1e-3}
REASON = 150  # characters of a reason

Tool = Callable[[Net, torch.dtype], Tensor]  # the Hessian (P, P) of a net


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the Hessian, in order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def split(parameters: list[nn.Parameter], vector: Tensor) -> list[Tensor]:
    """A vector (P,) in the parameters' shapes."""
    pieces = vector.split([parameter.numel() for parameter in parameters])
    return [v.reshape(p.shape) for v, p in zip(pieces, parameters, strict=True)]


def joined(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Tensors as one vector (P,)."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def truth(net: Net, step: float = 1e-4) -> tuple[float, Tensor]:
    """The loss of all examples as one batch and its Hessian (P, P), by nothing but gradients.

    Differences of fourth order: (8 (g(h) − g(−h)) − g(2h) + g(−2h)) / 12 h.
    """
    model, loss, ((inputs, targets),) = net.make(torch.float64)
    parameters = trainable(model)

    def gradient() -> Tensor:
        return joined(torch.autograd.grad(loss(model(inputs), targets), parameters))

    rows = []
    for parameter in parameters:
        weights = parameter.data.view(-1)
        for index in range(len(weights)):
            at = weights[index].item()
            row = torch.zeros(())
            for multiple, factor in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                weights[index] = at + multiple * step
                row = row + factor * gradient()
            weights[index] = at
            rows.append(row / (12 * step))
    return float(loss(model(inputs), targets).detach()), torch.stack(rows)


def problem(net: Net, dtype: torch.dtype) -> Problem:
    """The net as ours takes it."""
    model, loss, whole = net.make(dtype)
    if isinstance(whole[0][0], Tensor):
        return Problem(model, loss, net.batches(dtype))
    return Problem(model, loss, net.batches(dtype), count=lambda batch: count(batch[0]))


def ours(net: Net, dtype: torch.dtype, options: Options | None = None) -> Tensor:
    """The Hessian (P, P) by this package."""
    operator = HessianOperator(problem(net, dtype), options=options)
    return operator @ torch.eye(operator.shape[0], dtype=dtype)


def by_pyhessian(net: Net, dtype: torch.dtype) -> Tensor:
    """The same by PyHessian."""
    model, loss, _ = net.make(dtype)
    tool = pyhessian(model, loss, dataloader=net.batches(dtype), cuda=False)
    parameters = trainable(model)
    eye = torch.eye(sum(p.numel() for p in parameters), dtype=dtype)
    return torch.stack(
        [joined(tool.dataloader_hv_product(split(parameters, row))[1]) for row in eye]
    )


def by_curvlinops(net: Net, dtype: torch.dtype) -> Tensor:
    """The same by curvlinops."""
    model, loss, _ = net.make(dtype)
    operator = HessianLinearOperator(
        model, loss, trainable(model), net.batches(dtype), batch_size_fn=count
    )
    return (operator @ torch.eye(operator.shape[0], dtype=dtype)).T


def by_eigenthings(net: Net, dtype: torch.dtype) -> Tensor:
    """The same by hessian-eigenthings."""
    model, loss, _ = net.make(dtype)
    operator = eigenthings.HessianOperator(
        model, net.batches(dtype), eigenthings.supervised_loss(loss)
    )
    return torch.stack([operator @ row for row in torch.eye(operator.size, dtype=dtype)])


def by_difference(net: Net, dtype: torch.dtype) -> Tensor:
    """Ours with ``--product difference``, the remedy that its refusals name."""
    return ours(net, dtype, Options(strategy="difference"))


def plainly(tool: Tool) -> Tool:
    """A tool without fused attention, which has no second derivative; ours finds that itself."""

    def run(net: Net, dtype: torch.dtype) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return tool(net, dtype)

    return run


# name: the tool, the package whose version is printed, what helps where it fails and its name
TOOLS: dict[str, tuple[Tool, str, Tool, str]] = {
    "ours": (ours, "ssgd-analysis", by_difference, "--product difference"),
    **{
        name: (tool, package, plainly(tool), "sdpa_kernel(MATH)")
        for name, tool, package in (
            ("PyHessian", by_pyhessian, "PyHessian"),
            ("curvlinops", by_curvlinops, "curvlinops-for-pytorch"),
            ("hessian-eigenthings", by_eigenthings, "hessian-eigenthings"),
        )
    },
}


def refusal(reason: Exception) -> dict[str, str]:
    """Why there is no number: our errors are refusals, any other is a failure."""
    kind = "refuses" if isinstance(reason, InputError) else "fails"
    text = first_line(reason)
    return {kind: text if len(text) <= REASON else text[:REASON].rstrip() + " …"}


def error(name: str, net: Net, dtype: torch.dtype, matrix: Tensor) -> dict[str, Any]:
    """A tool's relative error in Frobenius norm, or why there is none and what the remedy gives."""
    tool, _, remedied, remedy = TOOLS[name]
    if name == "hessian-eigenthings" and eigenthings is None:
        return {"fails": "not installed"}

    def errors(run: Tool) -> dict[str, Any]:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            found = run(net, dtype).double()
        value, skew = (float(d.norm() / matrix.norm()) for d in (found - matrix, found - found.T))
        return {"error": value, "asymmetry": skew}

    try:
        return errors(tool)
    except Exception as reason:  # a peer may raise anything
        failed = refusal(reason)
    try:
        return {**failed, "remedy": remedy, **errors(remedied)}
    except Exception:  # the first reason is the one to tell
        return failed


def measured(net: Net, loss: float, matrix: Tensor) -> dict[str, Any]:
    """What ``measure`` says of a net in float64.

    Returns:
        Relative ``error`` of the loss, λ_max or λ_min (by λ_max), the largest of them; that of
        the ``trace`` in its standard errors.
    """
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    top, bottom = float(values[-1]), float(values[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = measure(problem(net, torch.float64), top=1, tol=1e-9).document
    except Exception as reason:
        return refusal(reason)
    errors = [
        abs(record["loss"] - loss) / abs(loss),
        abs(record["eigenvalues"][0]["value"] - top) / top,
        abs(record["smallest_eigenvalue"]["value"] - bottom) / top,
    ]
    trace = record["trace"]
    distance = abs(trace["value"] - float(matrix.trace())) / trace["stderr"]
    return {"error": max(errors), "trace": distance}


def row(net: Net, tools: list[str]) -> dict[str, Any]:
    """All errors of one net."""
    loss, matrix = truth(net)
    found: dict[str, Any] = {
        "net": net.name,
        "parameters": len(matrix),
        "truth": float((matrix - matrix.T).norm() / matrix.norm()),
        "tools": {
            name: {dtype: error(name, net, of, matrix) for dtype, of in DTYPES.items()}
            for name in tools
        },
    }
    if "ours" in tools:
        found["measure"] = measured(net, loss, matrix)
    return found


def number(found: dict[str, Any], dtype: str) -> str:
    """An error as text; a wrong number is bold."""
    value = found["error"]
    return f"{value:.0e}" if value <= WRONG[dtype] else f"**{value:.1g}**"


def cell(found: dict[str, dict[str, Any]], notes: list[str]) -> str:
    """The results of one tool, one for each dtype, as text; reasons become notes."""
    texts = []
    for dtype, result in found.items():
        kind = next((kind for kind in ("fails", "refuses") if kind in result), "")
        text, tail = "", ""
        if kind:
            reason = result[kind]
            if reason not in notes:
                notes.append(reason)
            text = f"{kind} [{notes.index(reason) + 1}]"
        if "error" in result:
            tail = number(result, dtype)
        texts.append((text, tail, f" by `{result['remedy']}`" if "remedy" in result else ""))
    reasons, numbers, remedies = (
        list(dict.fromkeys(column)) for column in zip(*texts, strict=True)
    )
    if len(reasons) == len(remedies) == 1:  # one story for all dtypes
        return ", ".join(part for part in (reasons[0], " / ".join(numbers) + remedies[0]) if part)
    return " / ".join(
        ", ".join(part for part in (text, tail + remedy) if part) for text, tail, remedy in texts
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table: a cell is the error in float64 / in float32."""
    names = list(rows[0]["tools"])
    notes: list[str] = []
    heads = ["network", "P", *(f"{name} {version(name)}" for name in names)]
    heads += ["ours: `measure`"] if "measure" in rows[0] else []
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|" + "---|" * (len(heads) - 2)]
    for found in rows:
        results = [found["tools"][name] for name in names]
        results += [{"float64": found["measure"]}] if "measure" in found else []
        cells = [found["net"], str(found["parameters"]), *(cell(r, notes) for r in results)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{i}. {note}" for i, note in enumerate(notes, 1))])


def version(tool: str) -> str:
    """Of its package, if it is there."""
    try:
        return importlib.metadata.version(TOOLS[tool][1])
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--nets", nargs="*", default=[net.name for net in NETS])
    parser.add_argument("--tools", nargs="*", default=list(TOOLS), choices=list(TOOLS))
    options = parser.parse_args()
    nets = [net for net in NETS if net.name in options.nets]
    rows = [row(net, options.tools) for net in nets]
    print(markdown(rows))
    if options.json:
        answer = {"torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
