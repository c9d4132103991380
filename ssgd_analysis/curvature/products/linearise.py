"""A product that is linear in its vector, traced once and split into what does not change.

Given w, the map v ↦ H v is linear: all that depends on w alone can be computed once a batch and
kept. ``torch.func.linearize`` does so too, but traces every batch anew, which costs as much as
ten products; here one trace serves all batches of a shape.
"""

import operator
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.shape_prop import ShapeProp

Flat = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]

# Forward mode makes tensors of zeros without storage; torch 2.14 recurses without end where such
# a one is multiplied in a trace (the derivative of mse_loss), so they are made plain.
PLAIN_ZEROS = {torch.ops.aten._efficientzerotensor.default: torch.zeros}


def laid_out(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Weights and images as the CPU's convolutions read them fastest: channels last.

    Otherwise every convolution reorders what it reads and writes (a product of ResNet-20: 10%).
    """
    return [
        tensor.contiguous(memory_format=torch.channels_last)
        if tensor.dim() == 4 and tensor.device.type == "cpu"
        else tensor
        for tensor in tensors
    ]


class Unsupported(Exception):  # noqa: N818 - not an error of the user: another strategy is taken
    """This function can't be traced into one graph for all batches."""


class Linearised:
    """A function of (weights, vector, data), linear in the vector, in two graphs.

    Args:
        function: three lists of tensors in, one list out: written with ``torch.func``.
        weights: one tensor for each parameter.
        vector: of the same shapes.
        data: the tensors of one batch; others must have the same shapes.
        compiled: let ``torch.compile`` make kernels of the moving part, at the first product.

    Weights and data are expected as :func:`laid_out` gives them, here and in :meth:`fix`.

    Raises:
        Unsupported: an operation has no forward-mode derivative, looks at values, or gives
            shapes that depend on values.
    """

    def __init__(
        self,
        function: Flat,
        weights: Sequence[Tensor],
        vector: Sequence[Tensor],
        data: Sequence[Tensor],
        *,
        compiled: bool = False,
    ) -> None:
        count = len(weights)

        def flat(*tensors: Tensor) -> list[Tensor]:
            return list(function(tensors[:count], tensors[count : 2 * count], tensors[2 * count :]))

        try:
            pure = torch.func.functionalize(flat, remove="mutations")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's own imports
                whole = make_fx(pure, decomposition_table=PLAIN_ZEROS)(*weights, *vector, *data)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # whatever torch raises for what it can't differentiate
            raise Unsupported(str(error)) from error
        self._split(whole, count)
        constants = self.fix(weights, vector, data)
        with torch.no_grad():
            ShapeProp(self._linear).propagate(*constants, *vector)
        _reuse(self._linear.graph)
        self._linear.recompile()
        self._run: Callable[..., list[Tensor]] = (
            torch.compile(self._linear, dynamic=False) if compiled else self._linear
        )

    def _split(self, whole: fx.GraphModule, count: int) -> None:
        _merge_equal(whole.graph)
        inputs = [node for node in whole.graph.nodes if node.op == "placeholder"]
        moving = _moving(whole.graph, inputs[count : 2 * count])
        _fold_factors(whole.graph, moving)
        nodes = list(whole.graph.nodes)
        output = nodes.pop()
        constants: dict[
            fx.Node, None
        ] = {}  # an ordered set: what the moving part needs of the rest
        for node in [*(n for n in nodes if n in moving), output]:
            constants.update((n, None) for n in node.all_input_nodes if n not in moving)
        still, copied = fx.Graph(), {}
        for node in nodes:
            if node.op == "placeholder":
                copied[node] = still.placeholder(node.name)
            elif node not in moving:
                copied[node] = still.node_copy(node, copied.__getitem__)
        still.output([copied[node] for node in constants])
        still.eliminate_dead_code()
        linear, copied = fx.Graph(), {}
        for node in [*constants, *inputs[count : 2 * count]]:
            copied[node] = linear.placeholder(node.name)
        for node in nodes:
            if node.op != "placeholder" and node in moving:
                copied[node] = linear.node_copy(node, copied.__getitem__)
        linear.output(fx.node.map_arg(output.args[0], copied.__getitem__))
        linear.eliminate_dead_code()
        self._still, self._linear = fx.GraphModule(whole, still), fx.GraphModule(whole, linear)

    @torch.no_grad()
    def fix(
        self, weights: Sequence[Tensor], vector: Sequence[Tensor], data: Sequence[Tensor]
    ) -> list[Tensor]:
        """What one batch keeps between products; ``vector`` gives shapes only."""
        return self._still(*weights, *vector, *data)

    @torch.no_grad()
    def multiply(self, constants: Sequence[Tensor], vector: Sequence[Tensor]) -> list[Tensor]:
        """The product with one vector, given what :meth:`fix` kept."""
        return self._run(*constants, *laid_out(vector))


class LinearMapCache:
    """The linear maps of a matrix by the shape of a batch, and the weights as these read them.

    Args:
        compiled: see :class:`Linearised`.
    """

    def __init__(self, *, compiled: bool = False) -> None:
        self.compiled = compiled
        self._made: dict[object, Linearised] = {}
        self._weights: list[Tensor] | None = None

    def weights(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """The weights laid out, once for all batches; those of the first call until forgotten."""
        if self._weights is None:
            self._weights = laid_out([parameter.detach() for parameter in parameters])
        return self._weights

    def forget_weights(self) -> None:
        """The weights have changed."""
        self._weights = None

    def of(self, shape: object, trace: Callable[[], Linearised]) -> Linearised:
        """The map for a shape, traced at the first call."""
        if shape not in self._made:
            self._made[shape] = trace()
        return self._made[shape]


def _merge_equal(graph: fx.Graph) -> None:
    """Operations with the same arguments are done once: forward passes come up twice."""
    first: dict[object, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op in ("placeholder", "output"):
            continue
        key = (node.op, node.target, repr((node.args, node.kwargs)))  # nodes print as their names
        if key in first:
            node.replace_all_uses_with(first[key])
            graph.erase_node(node)
        else:
            first[key] = node


def _moving(graph: fx.Graph, vector: Sequence[fx.Node]) -> set[fx.Node]:
    """All that depends on the vector.

    Raises:
        Unsupported: something could not be kept: chance, shapes out of values, overwriting.
    """
    moving = set(vector)
    for node in graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.dynamic_output_shape in tags or torch.Tag.nondeterministic_seeded in tags:
            raise Unsupported(f"{node.target}: its result depends on values or on random numbers")
        if node.op in ("placeholder", "output"):
            continue
        if any(n in moving for n in node.all_input_nodes):
            moving.add(node)
            schema = getattr(node.target, "_schema", None)
            if schema is not None and schema.is_mutable and node.args[0] not in moving:
                raise Unsupported(f"{node.target} would overwrite a value that later products need")
    return moving


def _fold_factors(graph: fx.Graph, moving: set[fx.Node]) -> None:
    """(v a) b becomes v (a b): in evaluation mode a normalisation is a chain of such factors."""
    multiply = torch.ops.aten.mul.Tensor

    def factors(node: object) -> tuple[fx.Node, fx.Node] | None:
        """The moving and the kept one of a product of both kinds."""
        if not isinstance(node, fx.Node) or node.target is not multiply or node not in moving:
            return None
        still = [n for n in node.args if isinstance(n, fx.Node) and n not in moving]
        others = [n for n in node.args if isinstance(n, fx.Node) and n in moving]
        return (others[0], still[0]) if len(still) == len(others) == 1 else None

    for node in list(graph.nodes):
        outer = factors(node)
        inner = factors(outer[0]) if outer else None
        if outer and inner and len(outer[0].users) == 1:
            with graph.inserting_before(node):
                both = graph.call_function(multiply, (inner[1], outer[1]))
            node.args = (inner[0], both)
            graph.erase_node(outer[0])
            moving.discard(outer[0])


def _reuse(graph: fx.Graph) -> None:
    """Sums and products are written over an operand that nothing else needs: no new memory."""
    aten = torch.ops.aten
    inplace = {aten.add.Tensor: aten.add_.Tensor, aten.mul.Tensor: aten.mul_.Tensor}
    # what returns memory of its own, not a view of an input
    fresh = {*inplace, *inplace.values(), aten.addcmul_.default, aten.convolution.default}
    fresh |= {aten.threshold_backward.default, aten.mm.default, aten.sub.Tensor}

    def owned(node: object) -> bool:
        if not isinstance(node, fx.Node) or len(node.users) != 1:
            return False
        source = node
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            source = node.args[0]
            return source.target is aten.convolution_backward.default
        return source.target in fresh

    def kind(node: object) -> tuple[object, object]:
        meta = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
        return getattr(meta, "shape", None), getattr(meta, "dtype", None)

    def product(node: object) -> bool:
        """A product used once, of tensors of its own type: it can be made while it is added."""
        return (
            isinstance(node, fx.Node)
            and node.target in (aten.mul.Tensor, aten.mul_.Tensor)
            and len(node.users) == 1
            and all(kind(factor)[1] == kind(node)[1] for factor in node.args)
        )

    for node in graph.nodes:
        if node.target not in inplace or len(node.args) != 2 or node.args[0] is node.args[1]:
            continue
        first, second = node.args
        if owned(second) and (not owned(first) or (product(first) and not product(second))):
            first, second = second, first
        if not owned(first) or None in kind(node) or kind(first) != kind(node):
            continue
        if node.target is aten.add.Tensor and product(second):
            node.target, node.args = aten.addcmul_.default, (first, *second.args)
            graph.erase_node(second)
        else:
            node.target, node.args = inplace[node.target], (first, second)
