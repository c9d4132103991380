"""Finds a model's weights among the tensors that a file holds.

Keys of nested dictionaries and prefixes of names are one thing, as in
``state_dict.module.fc.weight``: the weights stand wherever one prefix makes all names fit.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.models.libraries import own_names
from ssgd_analysis.runs.named_tensors import (
    NamedTensor,
    keys_of,
    listed,
    named_tensors,
    quoted,
    without_wrappers,
)

# Words in the key of tensors that are named like the weights and are not the plain ones.
_COPIES = {"ema", "swa", "avg", "average", "averaged", "shadow", "polyak", "teacher", "target"}
_COPIES |= {"best", "init", "initial", "momentum", "velocity", "grad", "grads", "gradients"}
_NO_WEIGHTS = {"total_ops", "total_params"}  # counters of profilers
_FAULTS = 2  # of each kind, named in an error
_BATCHES = "num_batches_tracked"  # absent from old files; evaluation does not use it


@dataclass(frozen=True)
class _Candidate:
    """Tensors under one prefix by the model's names; ``faults`` says which do not fit."""

    prefix: str
    found: dict[str, NamedTensor]
    faults: list[str]

    @property
    def key(self) -> str:
        """The prefix as the file spells it, with wrappers."""
        parts = next(iter(self.found.values())).raw.split(".")
        starts = [".".join(parts[:depth]) for depth in range(len(parts))]
        return next(s for s in reversed(starts) if self.prefix in (s, without_wrappers(s)))

    @property
    def is_copy(self) -> bool:
        """Whether the key says that these are an average or another copy."""
        words = re.split(r"[^a-z]+", self.key.lower())
        return any(w in _COPIES or w.startswith("ema") or w.endswith("ema") for w in words)

    def same(self, other: "_Candidate") -> bool:
        """Whether both hold equal tensors."""
        return self.found.keys() == other.found.keys() and all(
            torch.equal(each.tensor, other.found[name].tensor) for name, each in self.found.items()
        )


class _Names:
    """A model's tensors by name, without wrappers and without a prefix that all of them have."""

    def __init__(self, model: nn.Module, prefix: str, *, plain: bool) -> None:
        def short(name: str) -> str:
            return (without_wrappers(name) if plain else name).removeprefix(f"{prefix}.")

        own = _own(model)
        self.full = {short(name): name for name in own}
        self.tensors = {short(name): tensor for name, tensor in own.items()}
        self.constants = {short(n): b for n, b in model.named_buffers() if n not in own}
        self.obsolete = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []
        tied: dict[Any, list[str]] = {}
        for name, tensor in self.tensors.items():
            same = (tensor.data_ptr() or name, tensor.shape, tensor.stride())
            tied.setdefault(same, []).append(name)
        self.tied = list(tied.values())
        self.needed = sum(not names[0].endswith(_BATCHES) for names in self.tied)

    def candidate(self, prefix: str, entries: Mapping[str, NamedTensor]) -> _Candidate:
        """The tensors of the file under a prefix, with every fault but tensors too many."""
        start = f"{prefix}." if prefix else ""
        found = {n: entries[start + n] for n in self.tensors if start + n in entries}
        faults = [_difference(each, self.tensors[name]) for name, each in found.items()]
        for names in self.tied:
            given = [name for name in names if name in found]
            if not given and not names[0].endswith(_BATCHES):
                faults.append(f"tensor {quoted(start + names[0])} is missing")
            for one, other in itertools.pairwise(given):
                if not torch.equal(found[one].tensor, found[other].tensor):
                    pair = f"{quoted(one)} and {quoted(other)}"
                    faults.append(f"{pair} differ, but are one tensor in the model")
        return _Candidate(prefix, found, [fault for fault in faults if fault])

    def is_weight(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor that the model does not have would have changed its outputs."""
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return False  # a counter, an index or a mask
        constant = self.constants.get(name)
        if constant is not None and constant.shape == tensor.shape:
            return not torch.allclose(constant.cpu().to(tensor.dtype), tensor.cpu())
        if any(re.search(pattern, name) for pattern in self.obsolete):
            return False
        return name.rpartition(".")[2] not in _NO_WEIGHTS


@dataclass(frozen=True)
class _Search:
    """All candidates for a model's names in a file; ``whole`` have every tensor that is needed."""

    names: _Names
    entries: dict[str, NamedTensor]
    candidates: list[_Candidate]
    whole: list[_Candidate]

    @property
    def fitting(self) -> list[_Candidate]:
        """Those beside which nothing is left over."""
        return [each for each in self.whole if not any(w for _, w in self.beside(each))]

    def beside(self, candidate: _Candidate) -> list[tuple[str, bool]]:
        """Tensors in a candidate's dictionaries that belong to none; whether they are weights."""
        places = {each.place for each in candidate.found.values()}
        taken = {each.raw for other in self.whole for each in other.found.values()}
        taken |= {each.raw for each in candidate.found.values()}
        start = f"{candidate.prefix}." if candidate.prefix else ""
        return [
            (each.raw, self.names.is_weight(name.removeprefix(start), each.tensor))
            for name, each in self.entries.items()
            if each.place in places and each.raw not in taken
        ]


def load_weights(
    model: nn.Module, content: Any, source: str | Path, *, weights: str | None = None
) -> list[str]:
    """Find a model's weights in the content of a file, and put them into the model.

    Every tensor of the model must be there in its shape, and beside them none that could be a
    weight. Forgiven are: a prefix that all names share, in the file or in the model; names of
    wrappers (``module``, ``_orig_mod``) anywhere; a missing name that is tied to one that is
    there; a missing ``num_batches_tracked``; additional counters, masks and constants. Of several
    sets that fit, the one whose key does not speak of an average or another copy is used.

    Args:
        model: receives the weights; it is not changed if they do not fit.
        content: nested dicts and lists with tensors, as
            :func:`~ssgd_analysis.runs.weight_files.read_weight_file` returns them; also a plain
            state dict.
        source: where the content comes from, for errors and notes.
        weights: use only what is under this key: nested keys and names, joined by dots.

    Returns:
        Notes on what was ignored, one sentence each.

    Raises:
        InputError: nothing fits, several different sets do, or there is no such key. The error
            names the keys of the file and the first tensors that do not fit.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> saved = {"epoch": 3, "net": {f"module.{n}": t for n, t in model.state_dict().items()}}
        >>> load_weights(nn.Linear(2, 1), saved, "weights.pt")
        []
    """
    every = named_tensors(content, source)
    tensors = [each for each in every if weights is None or _below(weights, each.raw)]
    if not tensors:
        raise _nothing(content, every, source, weights)
    search = _best(_searches(model, tensors))
    if not search.fitting:
        renamed = own_names(model, {each.raw: each.tensor for each in tensors})
        again = _best(_searches(model, named_tensors(renamed, source))) if renamed else search
        if not again.fitting:
            raise _refusal(search, content, source)
        search = again
    chosen = _choose(search.fitting, source)
    loaded = {search.names.full[name]: each.tensor for name, each in chosen.found.items()}
    model.load_state_dict(loaded, strict=False)
    return _notes(search, chosen, source, asked=weights is not None)


def _searches(model: nn.Module, tensors: list[NamedTensor]) -> Iterator[_Search]:
    """With the model's names in full, and without each prefix that they share."""
    own, raw = list(_own(model)), [each.raw for each in tensors]
    # Without wrappers two names may become one: then they are part of the names.
    plain = all(len({*map(without_wrappers, names)}) == len(names) for names in (own, raw))
    entries = {without_wrappers(e.raw) if plain else e.raw: e for e in tensors}
    for prefix in _shared(without_wrappers(name) if plain else name for name in own):
        names = _Names(model, prefix, plain=plain)
        candidates = _candidates(names, entries)
        whole = [candidate for candidate in candidates if not candidate.faults]
        yield _Search(names, entries, candidates, whole)


def _best(searches: Iterable[_Search]) -> _Search:
    """The first one in which something fits, else the one in which most does."""
    every = list(searches)
    nearest = max(every, key=lambda s: max((len(c.found) for c in s.candidates), default=0))
    return next((search for search in every if search.fitting), nearest)


def _own(model: nn.Module) -> dict[str, Tensor]:
    return {n: t for n, t in model.state_dict().items() if isinstance(t, Tensor)}


def _below(key: str, name: str) -> bool:
    return name.startswith(f"{key}.") or without_wrappers(name).startswith(f"{key}.")


def _shared(names: Iterable[str]) -> list[str]:
    """Nothing, and each prefix that all names have, the shortest first."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [level[0] for level in itertools.takewhile(lambda v: len({*v}) == 1, levels)]
    return [".".join(shared[:depth]) for depth in range(len(shared) + 1)]


def _candidates(names: _Names, entries: dict[str, NamedTensor]) -> list[_Candidate]:
    """Under every prefix with enough tensors; else the nearest one, for its faults."""
    count: Counter[str] = Counter()
    for name in entries:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in names.tensors:
                count[".".join(parts[:depth])] += 1
    ranked = count.most_common()
    enough = [prefix for prefix, number in ranked if number >= names.needed]
    return [names.candidate(p, entries) for p in enough or [prefix for prefix, _ in ranked[:1]]]


def _difference(each: NamedTensor, own: Tensor) -> str:
    """Why a tensor cannot take the place of the model's; empty if it can."""
    tensor = each.tensor
    if tensor.shape != own.shape:
        shapes = f"has shape {tuple(tensor.shape)}, the model's has {tuple(own.shape)}"
        return f"tensor {quoted(each.raw)} {shapes}"
    lossy = own.is_floating_point() and not tensor.is_floating_point()
    if lossy or (tensor.is_complex() and not own.is_complex()):
        return f"tensor {quoted(each.raw)} holds {tensor.dtype}, the model's {own.dtype}"
    return ""


def _choose(fitting: list[_Candidate], source: str | Path) -> _Candidate:
    """The plain weights, or the only ones."""
    plain = [candidate for candidate in fitting if not candidate.is_copy] or fitting
    if not all(plain[0].same(other) for other in plain[1:]):
        raise InputError(
            f"{source} holds {len(plain)} different sets of weights that fit the model, under"
            f" {listed(c.key for c in plain)}: choose with --weights {plain[-1].key}"
        )
    return plain[0]


def _notes(search: _Search, chosen: _Candidate, source: str | Path, *, asked: bool) -> list[str]:
    others = [each.key for each in search.fitting if not each.same(chosen)]
    notes = []
    if others:
        where = f"under {quoted(chosen.key)}" if chosen.key else "at the top level"
        notes.append(
            f"{source}: the weights {where} are used, not those under {listed(others)}"
            f" (--weights {others[0]})"
        )
    elif chosen.is_copy and not asked:
        notes.append(f"{source}: the weights are those under {quoted(chosen.key)}")
    ignored = [name for name, _ in search.beside(chosen)]
    if ignored:
        notes.append(f"{source}: tensors that are no weights are ignored: {listed(ignored)}")
    return notes


def _nothing(
    content: Any, every: list[NamedTensor], source: str | Path, weights: str | None
) -> InputError:
    if every:
        key = quoted(str(weights))
        return InputError(f"{source} has no weights under {key}: {keys_of(content)}")
    return InputError(
        f"{source} does not hold tensors by name ({keys_of(content)}): save model.state_dict()"
    )


def _refusal(search: _Search, content: Any, source: str | Path) -> InputError:
    """What does not fit where most of it does, and what else to try."""
    if search.whole:
        best = search.whole[0]
    else:
        best = next(iter(search.candidates), search.names.candidate("", search.entries))
    if best.found:
        unknown = [name for name, is_weight in search.beside(best) if is_weight]
    else:
        place, _ = Counter(each.place for each in search.entries.values()).most_common(1)[0]
        unknown = [each.raw for each in search.entries.values() if each.place == place]
    faults = [f"the model has no tensor {quoted(name)}" for name in unknown[:_FAULTS]]
    faults += best.faults[:_FAULTS]
    left = len(unknown) + len(best.faults) - len(faults)
    more = f" and {left} more" if left else ""
    remedy = "give the --model that they were saved from, or other weights with --weights KEY"
    if search.whole and not any(_below(best.key, name) for name in unknown) and best.key:
        remedy = f"--weights {best.key} takes the part that fits"
    return InputError(
        f"{source}: the weights do not fit the model: {'; '.join(faults)}{more}"
        f" ({keys_of(content)}); {remedy}"
    )
