"""A model's outputs as one graph of operations, cut by what each of them depends on."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from ssgd_analysis.curvature.products.linearise import Unsupported
from ssgd_analysis.errors import first_line
from ssgd_analysis.landscapes.evaluation.rewrite import Kind, dependences, rewrite

aten = torch.ops.aten
# what takes a shape and a type from a tensor, and none of its values
BY_SHAPE = {aten.new_empty.default, aten.new_full.default, aten.new_ones.default}
BY_SHAPE |= {aten.new_zeros.default, aten.empty_like.default, aten.full_like.default}
BY_SHAPE |= {aten.ones_like.default, aten.zeros_like.default}
CONSTANT, STILL, POINT, MIXED = (False, False), (True, False), (False, True), (True, True)


@dataclass(frozen=True)
class Stage:
    """A part of a graph: what it takes from earlier parts and what it gives to later ones."""

    module: fx.GraphModule
    takes: list[fx.Node]
    gives: list[fx.Node]

    def run(self, given: dict[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """The values it gives, by node."""
        values = self.module.forward(*[given[node] for node in self.takes])
        return dict(zip(self.gives, values, strict=True))


class StagedGraph:
    """Outputs for one shape of inputs, in four stages.

    What depends on constants alone is computed once; on the inputs alone, once a chunk; on the
    moving tensors alone (a normalisation folded into a convolution), once a point; only the
    others at every point and chunk.

    Args:
        model: in evaluation mode.
        weights: the parameters that move from point to point.
        rest_moves: whether buffers and the other parameters move, too.
        inputs: of one chunk; others must have the same shape.
        casting: what a forward pass runs in, for autocast.

    Raises:
        Unsupported: the model looks at values, writes into its buffers, depends on chance, or
            lets examples see one another (where the graph shows it).
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Sequence[Tensor],
        inputs: Tensor,
        *,
        rest_moves: bool,
        casting: AbstractContextManager[object],
    ) -> None:
        owned = {id(weight) for weight in weights}
        slots = {
            f"{path}.{name}".lstrip("."): tensor
            for path, module in model.named_modules()  # a module that is used twice comes once
            for kind in (module.named_parameters, module.named_buffers)
            for name, tensor in kind(recurse=False, remove_duplicate=False)
        }
        rest = list({id(t): t for t in slots.values() if id(t) not in owned}.values())
        held = [*weights, *rest]
        index = {id(tensor): number for number, tensor in enumerate(held)}

        def outputs(tensors: list[Tensor], chunk: Tensor) -> Tensor:
            given = {name: tensors[index[id(tensor)]] for name, tensor in slots.items()}
            with casting:
                return functional_call(model, given, (chunk,), tie_weights=False)

        self._held = [tensor.detach() for tensor in held]
        with _untouched(model):
            graph = _traced(outputs, self._held, inputs)
        placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        self._slots, self._data = placeholders[:-1], placeholders[-1]
        moving = set(placeholders[: len(held) if rest_moves else len(weights)])
        _keep_examples_apart(graph.graph, self._data, len(inputs))
        rewrite(graph, self._data, moving, cpu=inputs.device.type == "cpu")
        self._stages(graph, dependences(graph.graph, self._data, moving))
        self._tensors = dict(zip(self._slots, self._held, strict=True))
        self._constants = self._constant.run(self._tensors)

    def _stages(self, graph: fx.GraphModule, kinds: dict[fx.Node, Kind]) -> None:
        nodes = list(graph.graph.nodes)
        result = nodes[-1].args[0]
        if not isinstance(result, fx.Node) or kinds[result] != MIXED:
            raise Unsupported("the outputs do not depend on inputs and weights")
        for node in nodes:
            source = node.args[0] if _writes(node) else None
            if source and (source.op != "call_function" or kinds[source] != kinds[node]):
                raise Unsupported(f"{node.target} writes into a value that is used again")
        self._mixed = _part(graph, kinds, MIXED, {result})
        wanted = set(self._mixed.takes)
        self._chunk = [node for node in self._mixed.takes if kinds[node] == STILL]
        self._prepared = [node for node in self._mixed.takes if kinds[node] != STILL]
        self._point = _part(graph, kinds, POINT, wanted)
        self._still = _part(graph, kinds, STILL, wanted)
        wanted |= {*self._point.takes, *self._still.takes}
        self._constant = _part(graph, kinds, CONSTANT, wanted)

    def chunk_values(self, inputs: Tensor) -> list[Tensor]:
        """The values of one chunk that are the same at every point."""
        values = {**self._tensors, **self._constants, self._data: inputs}
        values |= self._still.run(values)
        return [values[node] for node in self._chunk]

    def point_values(self) -> list[Tensor]:
        """The values of one point that are the same for every chunk, at the present weights."""
        values: dict[fx.Node, Tensor] = {**self._tensors, **self._constants}
        values |= self._point.run(values)
        return [values[node] for node in self._prepared]

    def outputs(self, point: list[Tensor], chunk: list[Tensor]) -> Tensor:
        """The outputs for one chunk at one point."""
        return self._mixed.module.forward(*point, *chunk)[0]


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Undo what a pass leaves on modules, and in their dicts, lists and sets (a cache, say).

    A fake tensor that a model has stored breaks whatever comes next.
    """
    clean: dict[int, tuple[Any, Any]] = {}
    reached: list[Any] = [vars(model)]
    while reached:
        holder = reached.pop()
        if id(holder) in clean:
            continue
        clean[id(holder)] = holder, copy.copy(holder)
        for value in holder.values() if isinstance(holder, dict) else holder:
            inner = vars(value) if isinstance(value, nn.Module) else value
            if isinstance(inner, dict | list | set):
                reached.append(inner)
    try:
        yield
    finally:
        for holder, values in clean.values():
            holder.clear()
            (holder.extend if isinstance(holder, list) else holder.update)(values)


def _keep_examples_apart(graph: fx.Graph, data: fx.Node, count: int) -> None:
    """Refuse what is one value for a whole chunk: a batch's examples would share another.

    Such a value may switch far from the positions where losses are compared.
    """
    graph.eliminate_dead_code()
    on_data = {data}
    for node in graph.nodes:
        if node.target in BY_SHAPE or on_data.isdisjoint(node.all_input_nodes):
            continue
        on_data.add(node)
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.numel() % count:
            raise Unsupported(f"{node.target}: its result belongs to no single example")


def _traced(
    outputs: Callable[[list[Tensor], Tensor], Tensor], held: list[Tensor], inputs: Tensor
) -> fx.GraphModule:
    """The graph, by fake tensors: a branch on values has none to look at and raises."""
    count = len(held)

    def flat(*tensors: Tensor) -> Tensor:
        return outputs(list(tensors[:count]), tensors[count])

    try:
        pure = torch.func.functionalize(flat, remove="mutations")
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own
            graph = make_fx(pure, tracing_mode="fake", _allow_non_fake_inputs=True)(*held, inputs)
    except Exception as error:  # whatever torch or a user's model raises
        raise Unsupported(first_line(error)) from error
    for node in graph.graph.nodes:
        tags = getattr(node.target, "tags", ())
        chance = torch.Tag.nondeterministic_seeded in tags and _dropout(node) != 0
        if torch.Tag.dynamic_output_shape in tags or chance:
            raise Unsupported(f"{node.target}: its result depends on values or on random numbers")
    return graph


def _dropout(node: fx.Node) -> object:
    """The share that an attention drops by chance; None for another operation."""
    for number, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == "dropout_p":
            given = [*node.args[number : number + 1], node.kwargs.get("dropout_p")]
            return next((value for value in given if value is not None), argument.default_value)
    return None


def _writes(node: fx.Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _part(
    whole: fx.GraphModule, kinds: dict[fx.Node, Kind], kind: Kind, wanted: set[fx.Node]
) -> Stage:
    """The operations of a kind as a graph of their own that gives those of them that are wanted.

    What it takes: first what does not depend on the inputs, then what does.
    """
    order = list(whole.graph.nodes)
    inside = [n for n in order if kinds[n] == kind and n.op not in ("placeholder", "output")]
    gives = [node for node in inside if node in wanted]
    sources = {source for node in inside for source in node.all_input_nodes}
    graph, copied = fx.Graph(), {}
    takes = sorted(
        (node for node in sources if kinds[node] != kind or node.op == "placeholder"),
        key=lambda node: (kinds[node][0], order.index(node)),
    )
    for node in takes:
        copied[node] = graph.placeholder(node.name)
    for node in inside:
        copied[node] = graph.node_copy(node, copied.__getitem__)
    graph.output([copied[node] for node in gives])
    graph.eliminate_dead_code()
    return Stage(fx.GraphModule(whole, graph), takes, gives)
