"""Hessian products, eigenvalues, traces and memory beside PyHessian, curvlinops and ARPACK.

Every ratio is of times taken in turn in one run. Prints tables; ``--json FILE`` writes the
numbers. ``pip install -e '.[test]'`` brings the peers. Weights are those after a few steps on
generated images (the mlp and the cnn: on digits), so that the spectra are a network's.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from curvlinops import HessianLinearOperator
from networks import NETS, Net
from pyhessian import hessian as pyhessian
from rich.console import Console
from rich.table import Table
from scipy.sparse.linalg import eigsh
from timing import Peak, in_turn
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, linearize

from ssgd_analysis.curvature import HessianOperator, Options, eigenpairs, survey, trace
from ssgd_analysis.curvature.eigen.eigenpairs import certify
from ssgd_analysis.curvature.products.plan import describe
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import flattened


def products(net: Net, device: str) -> dict[str, Any]:
    """Seconds of one product over all data: ours, the peers', and the candidates alone."""
    model, batches = net.make(device)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    weights = list(model.parameters())
    inputs, targets = batches[0]
    vector = [torch.randn_like(p) for p in weights]
    flat, named = flattened(vector), dict(zip(parameters, vector, strict=True))

    def loss_at(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, p, (x,)), y)

    def gradient(x: Tensor, y: Tensor, graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(F.cross_entropy(model(x), y), weights, create_graph=graph)

    ours = HessianOperator(Problem(model, F.cross_entropy, batches))
    began = time.perf_counter()
    ours.prepare(300)
    chosen = time.perf_counter() - began
    peers = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), weights, batches,
        progressbar=False, check_deterministic=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tool = pyhessian(
            copy.deepcopy(model), F.cross_entropy, dataloader=batches, cuda=device != "cpu"
        )
    # fused attention has no second derivative: the peers would fail
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        gradients = gradient(inputs, targets, graph=True)
        pieces = [
            gradient(x, y, graph=True)
            for x, y in zip(inputs.split(32), targets.split(32), strict=True)
        ]
        work: dict[str, Callable[[], Any]] = {
            "gradient": lambda: gradient(inputs, targets),
            "ours": lambda: ours @ flat,
            "PyHessian": lambda: tool.dataloader_hv_product(vector),
            "curvlinops": lambda: peers @ flat,
            "kept graph": lambda: torch.autograd.grad(
                gradients, weights, vector, retain_graph=True
            ),
            "kept graph, 32": lambda: [
                torch.autograd.grad(piece, weights, vector, retain_graph=True) for piece in pieces
            ],
        }
        slope = grad(lambda p: loss_at(p, inputs, targets))
        work["jvp(grad)"] = lambda: jvp(slope, (parameters,), (named,))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                linear = linearize(slope, parameters)[1]
            work["linearize"] = lambda: linear(named)
        except Exception as error:
            print(f"{net.name}: torch.func.linearize fails: {type(error).__name__}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds = in_turn(work, net.rounds, device)
    plan = ours.engine.plan
    return {
        "net": net.name,
        "parameters": len(flat),
        "examples": net.examples,
        "seconds": seconds,
        "plan": describe(plan),
        "choosing": chosen,
    }


def searches(net: Net, device: str, top: int = 10, tol: float = 1e-4) -> dict[str, Any]:
    """Products for the top eigenvalues: ours, ARPACK's and PyHessian's, each with its residual."""
    model, batches = net.make(device)
    operator = HessianOperator(Problem(model, F.cross_entropy, batches))
    operator.prepare(300)
    found = eigenpairs(operator, top, tol=tol, smallest=False, generator=_generator(device))
    checked = found.check.products if found.check else 0
    before = operator.products
    start = torch.randn(operator.shape[0], generator=_generator("cpu")).numpy()
    vectors = eigsh(operator.to_scipy(), k=top, which="LA", tol=tol, v0=start)[1]
    arpack = operator.products - before
    certified, _ = certify(operator, torch.as_tensor(vectors.copy(), device=operator.device))
    row = {
        "net": net.name,
        "top": top,
        "ours": {
            "search": found.products - checked - len(found.largest) - 1,
            "check": checked,
            "all": found.products,
            "residual": max(pair.residual for pair in found.largest),
        },
        "ARPACK": {"all": arpack, "residual": max(pair.residual for pair in certified)},
    }
    if net.name == "vgg16_bn":
        return row  # PyHessian's hundreds of products would take an hour
    count = 0
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        tool = pyhessian(
            copy.deepcopy(model), F.cross_entropy, dataloader=batches, cuda=device != "cpu"
        )
        weights = list(tool.model.parameters())

        def counted(v: list[Tensor]) -> tuple[float, list[Tensor]]:
            nonlocal count  # our products in its algorithm: the same numbers, sooner
            count += 1
            image = operator @ flattened(v)
            parts = list(image.split([p.numel() for p in weights]))
            shaped = [part.reshape(p.shape) for part, p in zip(parts, weights, strict=True)]
            value = float(sum((a * b).sum() for a, b in zip(v, shaped, strict=True)))
            return value, shaped

        tool.dataloader_hv_product = counted
        # tighten its stopping rule until the residuals are as small as ours, or it gives up
        for value_tol in (1e-3, 1e-5, 1e-7):
            count = 0
            _, spanned = tool.eigenvalues(maxIter=1000, tol=value_tol, top_n=top)
            columns = torch.stack([flattened(v) for v in spanned], dim=1)
            pairs, _ = certify(operator, columns)
            residual = max(pair.residual for pair in pairs)
            row["PyHessian"] = {"all": count, "residual": residual, "tol": value_tol}
            if residual <= row["ours"]["residual"] or net.name not in ("mlp", "cnn"):
                break
        loose = eigenpairs(
            operator, top, tol=residual, smallest=False, generator=_generator(device)
        )
        row["as loose"] = {
            "all": loose.products,
            "residual": max(pair.residual for pair in loose.largest),
        }
    return row


def traces(net: Net, device: str, repeats: int = 12, budget: int = 60) -> dict[str, Any]:
    """Spread of each trace estimate at equal products, relative to plain Hutchinson's."""
    model, batches = net.make(device)
    operator = HessianOperator(Problem(model, F.cross_entropy, batches))
    operator.prepare(2000)
    top = eigenpairs(operator, 10, tol=1e-3, smallest=False, generator=_generator(device))
    spread = {}
    ways: dict[str, dict[str, Any]] = {
        "hutchinson": {"method": "hutchinson"},
        "deflated": {"method": "hutchinson", "deflate": top.vectors, "known": top.quotients},
        "hutch++": {"method": "hutch++"},
        "xtrace": {"method": "xtrace"},
    }
    for name, options in ways.items():
        # with deflation the eigenvectors were asked for anyway, and cost the trace nothing
        values = [
            trace(operator, generator=_generator(device, seed), probes=budget, **options).value
            for seed in range(repeats)
        ]
        spread[name] = statistics.stdev(values)
    return {"net": net.name, "products": budget, "repeats": repeats, "spread": spread}


def _generator(device: str, seed: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def show_products(rows: list[dict[str, Any]], title: str) -> None:
    """Times and ratios, one row a net."""
    names = [n for n in rows[0]["seconds"] if n not in ("gradient", "ours")]
    table = Table(title=title)
    for column in ("net, N", "gradient s", "ours s", "/ gradient", *(f"/ {n}" for n in names),
                   "plan"):  # fmt: skip
        table.add_column(column, justify="left" if column in ("net, N", "plan") else "right")
    for row in rows:
        seconds = row["seconds"]
        ours = seconds["ours"]
        ratios = [f"{ours / seconds[n]:.2f}" if n in seconds else "–" for n in names]
        table.add_row(
            f"{row['net']}, {row['examples']}",
            f"{seconds['gradient']:.4g}",
            f"{ours:.4g}",
            f"{ours / seconds['gradient']:.2f}",
            *ratios,
            row["plan"].split(", about")[0],
        )
    Console(width=200).print(table)


def show_searches(rows: list[dict[str, Any]]) -> None:
    """Products and residuals, one row a net."""
    table = Table(title="products for the top 10 eigenvalues, tol 1e-4 (ours: search + check + 11)")
    columns = ("net", "ours", "residual", "ARPACK", "residual", "PyHessian", "residual",
               "ours as loose", "residual")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column == "net" else "right")
    for row in rows:
        ours = row["ours"]
        cells = [f"{ours['all']} ({ours['search']} + {ours['check']})", f"{ours['residual']:.1e}"]
        for peer in ("ARPACK", "PyHessian", "as loose"):
            measured = row.get(peer)
            cells += (
                [str(measured["all"]), f"{measured['residual']:.1e}"] if measured else ["–", "–"]
            )
        table.add_row(row["net"], *cells)
    Console(width=140).print(table)


def show_traces(rows: list[dict[str, Any]]) -> None:
    """Spread relative to Hutchinson's, one row a net."""
    names = list(rows[0]["spread"])
    table = Table(
        title=f"spread of trace estimates at {rows[0]['products']} products, × Hutchinson"
    )
    table.add_column("net")
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        base = row["spread"]["hutchinson"]
        table.add_row(row["net"], *(f"{row['spread'][n] / base:.2f}" for n in names))
    Console(width=100).print(table)


def full(net: Net, device: str, tol: float) -> dict[str, Any]:
    """Top 10, trace and density in one survey: products, seconds and memory."""
    model, batches = net.make(device)
    with Peak(device) as peak:
        began = time.perf_counter()
        operator = HessianOperator(Problem(model, F.cross_entropy, batches), options=Options())
        operator.prepare(300)
        found = survey(operator, 10, tol=tol)
        seconds = time.perf_counter() - began
    pairs = found.spectrum.largest
    return {
        "net": net.name,
        "parameters": operator.shape[0],
        "products": found.products,
        "seconds": seconds,
        "bytes": peak.bytes,
        "residual": max(pair.residual for pair in pairs),
        "lambda_max": pairs[0].value,
        "trace": found.trace.value,
        "trace_stderr": found.trace.stderr,
        "stop": found.spectrum.stop,
    }


def memory(net: Net, device: str, budget: int) -> dict[str, Any]:
    """Peak memory of products under a budget, measured in a process of its own."""
    command = [sys.executable, __file__, "--device", device, "--child", net.name, str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(net: Net, device: str, budget: int) -> None:
    """What :func:`memory` runs: choose under the budget, multiply, print the peak."""
    model, batches = net.make(device)
    small = [(inputs[:2], targets[:2]) for inputs, targets in batches]
    for strategy in ("graph", "linear"):  # code and threads are loaded before memory is watched
        warm = HessianOperator(
            Problem(model, F.cross_entropy, small), options=Options(strategy=strategy)
        )
        vector = torch.randn(warm.shape[0], device=device)
        _ = warm @ vector
    del warm
    with Peak(device) as peak:
        operator = HessianOperator(
            Problem(model, F.cross_entropy, batches), options=Options(memory=budget)
        )
        operator.prepare(300)
        for _ in range(3):
            _ = operator @ vector
    row = {"net": net.name, "budget": budget, "measured": peak.bytes}
    plan = operator.engine.plan
    print(json.dumps({**row, "predicted": plan.peak, "plan": describe(plan)}))


def show_memory(rows: list[dict[str, Any]]) -> None:
    """Budget, prediction and measurement in MiB."""
    table = Table(title="memory of products under a budget, MiB")
    for column in ("net", "budget", "predicted", "measured", "plan"):
        table.add_column(column, justify="left" if column in ("net", "plan") else "right")
    for row in rows:
        sizes = [f"{row[key] / 2**20:.0f}" for key in ("budget", "predicted", "measured")]
        table.add_row(row["net"], *sizes, row["plan"].split(", about")[0])
    Console(width=140).print(table)


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--nets", nargs="*", default=[net.name for net in NETS])
    parts = ["products", "memory", "searches", "traces", "full"]
    parser.add_argument("--parts", nargs="*", default=parts)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        (net,) = [net for net in NETS if net.name == options.child[0]]
        child(net, options.device, int(options.child[1]))
        return
    nets = [net for net in NETS if net.name in options.nets]
    small = [net for net in nets if net.name in ("mlp", "cnn")]
    answer: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if options.device != "cpu" else "cpu",
    }
    title = f"one Hessian product over all data, {answer['device']}, torch {torch.__version__}"
    if "products" in options.parts:
        answer["products"] = [products(net, options.device) for net in nets]
        show_products(answer["products"], f"{title}, {answer['threads']} threads")
    if "memory" in options.parts:
        answer["memory"] = [
            memory(net, options.device, budget * 2**20)
            for net in nets
            if net.name in ("cnn", "resnet20")
            for budget in (150, 500, 4000)
        ]
        show_memory(answer["memory"])
    if "searches" in options.parts:
        answer["searches"] = [searches(net, options.device) for net in nets]
        show_searches(answer["searches"])
    if "traces" in options.parts and small:
        answer["traces"] = [traces(net, options.device) for net in small]
        show_traces(answer["traces"])
    if "full" in options.parts:
        answer["full"] = [
            full(net, options.device, 1e-3) for net in nets if net.name in ("resnet20", "vgg16_bn")
        ]
        for row in answer["full"]:
            print(
                f"{row['net']}: top 10, trace and density: {row['products']} products,"
                f" {row['seconds']:.0f} s, {row['bytes'] / 2**30:.1f} GiB,"
                f" residuals up to {row['residual']:.1e} ({row['stop']})"
            )
    if options.json:
        options.json.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
