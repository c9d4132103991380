"""Axes of tensors as sets of units, and which axes must be permuted together."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Mismatch(Exception):  # noqa: N818 - not an error of the user: the units are left alone
    """Two axes that an operation ties do not divide into the same units."""


class Space:
    """The units that the entries of an axis stand for.

    A space is whole, or a product (a flattened axis of channels, rows, columns; the last part
    runs fastest) or a sum (concatenated channels) of other spaces. Spaces that turn out to be
    the same are linked: a permutation of one is a permutation of all.

    Args:
        size: how many units.
        why: why they can't be permuted; ``None``: they can, as far as is known.
        product: the parts of a product.
        total: the parts of a sum.
    """

    def __init__(
        self,
        size: int,
        why: str | None = None,
        *,
        product: Sequence["Space"] = (),
        total: Sequence["Space"] = (),
    ) -> None:
        self.size, self.why = size, why
        self._product, self._total = list(product), list(total)
        self._link: Space | None = None

    @property
    def root(self) -> "Space":
        """The one that stands for all that are linked."""
        space = self
        while space._link is not None:
            space = space._link
        return space

    @property
    def factors(self) -> list["Space"]:
        """The parts of a product, each no product itself; one unit alone is none."""
        root = self.root
        if root._product:
            return [factor for part in root._product for factor in part.factors]
        return [root] if root.size > 1 else []

    @property
    def terms(self) -> list["Space"]:
        """The parts of a sum, each no sum itself."""
        root = self.root
        return [term for part in root._total for term in part.terms] if root._total else [root]

    @property
    def leaves(self) -> list["Space"]:
        """The whole spaces it is made of, each once."""
        root = self.root
        parts = root._product or root._total
        found = [leaf for part in parts for leaf in part.leaves] if parts else [root]
        return list(dict.fromkeys(found))

    def pin(self, why: str) -> None:
        """Its units can't be permuted."""
        for leaf in self.leaves:
            if leaf.why is None:
                leaf.why = why

    def positions(self, leaf: "Space") -> Tensor | None:
        """Where in this axis the units of a whole space stand.

        Returns:
            Shape (units, places of each), int64; ``None`` if it has no part in this axis.
        """
        root = self.root
        if root is leaf:
            return torch.arange(leaf.size)[:, None]
        found, start, inner = [], 0, root.size
        for part in root._product or root._total:
            inside = part.positions(leaf)
            if root._product:
                inner //= part.size
                if inside is not None:
                    outer = torch.arange(0, root.size, inner * part.size)[None, :, None, None]
                    rows = inside[:, None, :, None] * inner + torch.arange(inner)
                    found.append((outer + rows).reshape(leaf.size, -1))
            elif inside is not None:
                found.append(inside + start)
            start += part.size
        if root._product and len(found) > 1:
            raise Mismatch("the same units twice in a flattened axis")
        return torch.cat(found, dim=1) if found else None

    def _become(self, parts: list["Space"], *, total: bool = False) -> list["Space"]:
        if self._product or self._total:
            raise Mismatch("an axis of several parts can't be cut across them")
        for part in parts:
            part.why = self.why
        self._product, self._total = ([], parts) if total else (parts, [])
        return parts


def product(parts: Sequence[Space]) -> Space:
    """An axis flattened from several."""
    return parts[0] if len(parts) == 1 else Space(math.prod(p.size for p in parts), product=parts)


def unify(one: Space, two: Space) -> None:
    """Let two axes stand for the same units.

    Raises:
        Mismatch: they do not divide into the same parts.
    """
    one, two = one.root, two.root
    if one is two:
        return
    if one.size != two.size:
        raise Mismatch("sizes differ")
    for first, second in ((one, two), (two, one)):
        if not (first._product or first._total):
            first._link = second
            if first.why is not None:
                second.pin(first.why)
            return
    if bool(one._product) != bool(two._product):
        raise Mismatch("a flattened and a concatenated axis")
    _align(one, two, products=bool(one._product))
    one._link = two


def _align(one: Space, two: Space, *, products: bool) -> None:
    """Unify the parts in order; a whole space is cut where the other side is."""
    left, right = (s.factors if products else s.terms for s in (one, two))
    while left and right:
        x, y = left.pop(0), right.pop(0)
        if x.size == y.size:
            unify(x, y)
            continue
        big, small, rest = (x, y, left) if x.size > y.size else (y, x, right)
        other = big.size // small.size if products else big.size - small.size
        if products and big.size % small.size:
            raise Mismatch("sizes do not divide")
        first, second = big._become([Space(small.size), Space(other)], total=not products)
        unify(first, small)
        rest.insert(0, second)


def reshaped(spaces: Sequence[Space], shape: Sequence[int]) -> list[Space]:
    """The axes of a tensor after a reshape.

    Raises:
        Mismatch: an axis would be cut across its parts.
    """
    waiting = [factor for space in spaces for factor in space.factors]
    axes = []
    for size in shape:
        taken, need = [], size
        while need > 1:
            first = waiting.pop(0)
            if need % first.size == 0:
                taken.append(first)
                need //= first.size
            elif first.size % need == 0:
                head, tail = first._become([Space(need), Space(first.size // need)])
                taken.append(head)
                waiting.insert(0, tail)
                need = 1
            else:
                raise Mismatch("sizes do not divide")
        axes.append(product(taken) if taken else Space(size))
    return axes


def cut(space: Space, sizes: Sequence[int]) -> list[Space]:
    """The axes of the pieces into which an axis is cut."""
    terms, pieces = space.terms, []
    for size in sizes:
        taken, need = [], size
        while need:
            first = terms.pop(0)
            if first.size > need:
                head, tail = first._become([Space(need), Space(first.size - need)], total=True)
                terms.insert(0, tail)
                first = head
            taken.append(first)
            need -= first.size
        pieces.append(joined(taken))
    return pieces


def joined(parts: Sequence[Space]) -> Space:
    """An axis concatenated from several."""
    return parts[0] if len(parts) == 1 else Space(sum(p.size for p in parts), total=parts)
