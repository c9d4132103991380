"""Methods by name, wrappers around them included: ``s-sgd+ema``."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import Method, MethodSettings
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.trained_on import TrainedOn
from ssgd_analysis.methods.when import When


class Wrapper(Method):
    """Something done around another method's steps: averaging, mostly.

    Args:
        passes: makes the passes.
        settings: an instance of the class's own ``Settings``, or of a subclass.
        inner: the method that makes the steps.
    """

    averages: ClassVar[bool] = False  # gives out an average of the weights, not the iterate
    moves: ClassVar[bool] = False  # moves the weights that the training goes on from

    def __init__(self, passes: Passes, settings: MethodSettings, inner: Method) -> None:
        super().__init__(passes, settings)
        self.inner = inner
        self.innermost: Method = inner.innermost if isinstance(inner, Wrapper) else inner

    @classmethod
    def passes_per_step(cls, settings: Any) -> float:
        """What it adds to the inner method's passes: nothing."""
        return 0

    def gradient(self, batch: Batch, when: When) -> float:
        """The inner method's; see :meth:`Method.gradient`."""
        return self.inner.gradient(batch, when)

    def step(self, batch: Batch, when: When) -> float:
        """Make the inner method's step, then call :meth:`after_step`."""
        loss = self.inner.step(batch, when)
        self.after_step(when)
        return loss

    def learning_rate(self, rate: float, fraction_done: float) -> float:
        """The inner method's; see :meth:`Method.learning_rate`."""
        return self.inner.learning_rate(rate, fraction_done)

    def after_step(self, when: When) -> None:
        """Act on the new weights; ``when`` is the moment of the step that was just made."""


def joined_settings(parts: Sequence[type[Method]]) -> type[MethodSettings]:
    """The settings of several methods, side by side.

    Raises:
        InputError: two of them have one of the same name.
    """
    owners: dict[str, type[Method]] = {}
    for part in parts:
        for field in dataclasses.fields(part.Settings):
            if owners.setdefault(field.name, part) is not part:
                names = f"{owners[field.name].__name__} and {part.__name__}"
                raise InputError(f"{names} both have a setting '{field.name}'")
    # Fields come in the order of the parts: the last base's first.
    bases = tuple(dict.fromkeys(part.Settings for part in reversed(parts)))
    own = tuple(base for base in bases if base is not MethodSettings) or (MethodSettings,)
    return dataclasses.dataclass(frozen=True, kw_only=True)(type("ComposedSettings", own, {}))


def composed(method: type[Method], wrappers: Sequence[type[Wrapper]]) -> type[Method]:
    """A method inside wrappers, the last one outermost; settings of all, side by side.

    After a step the wrappers act in their order. Weights are given out in that order too, an
    average last: with Lookahead and an average, in whichever order, the average.

    Raises:
        InputError: two averages, of which only one could be given out; a setting of two; or
            weights that are moved while they carry noise.
    """
    parts: tuple[type[Method], ...] = (method, *wrappers)
    if sum(wrapper.averages for wrapper in wrappers) > 1:
        names = " and ".join(wrapper.__name__ for wrapper in wrappers if wrapper.averages)
        raise InputError(f"{names} both average the weights: use only one of them")

    movers = [wrapper.__name__ for wrapper in wrappers if wrapper.moves]
    if movers and getattr(method, "carries_noise", False):
        raise InputError(
            f"{movers[0]} cannot wrap {method.__name__}: it would move weights that still carry"
            " noise"
        )

    class Composed(Method):
        __doc__ = "; then ".join(part.summary() for part in parts) + "."
        Settings: ClassVar[type[MethodSettings]] = joined_settings(parts)
        OPTIMIZER: ClassVar[str] = method.OPTIMIZER

        def __init__(self, passes: Passes, settings: MethodSettings) -> None:
            super().__init__(passes, settings)
            chain: list[Method] = [method(passes, settings)]
            for wrapper in wrappers:
                chain.append(wrapper(passes, settings, chain[-1]))
            self.chain = chain

        @classmethod
        def passes_per_step(cls, settings: Any) -> float:
            own = method.passes_per_step(settings)
            return own + sum(wrapper.passes_per_step(settings) for wrapper in wrappers)

        @classmethod
        def minibatches(cls, settings: Any) -> int:
            return method.minibatches(settings)

        @classmethod
        def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
            return method.trained_on(settings, lr_schedule)

        @classmethod
        def freezes_batchnorm(cls, settings: Any) -> bool:
            return method.freezes_batchnorm(settings)

        @classmethod
        def smallest_pass(cls, settings: Any, batch_size: int) -> int:
            return method.smallest_pass(settings, batch_size)

        def gradient(self, batch: Batch, when: When) -> float:
            return self.chain[0].gradient(batch, when)

        def step(self, batch: Batch, when: When) -> float:
            return self.chain[-1].step(batch, when)

        def learning_rate(self, rate: float, fraction_done: float) -> float:
            return self.chain[-1].learning_rate(rate, fraction_done)

        def state_dict(self) -> dict[str, Any]:
            return {str(index): part.state_dict() for index, part in enumerate(self.chain)}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            for index, part in enumerate(self.chain):
                part.load_state_dict(state[str(index)])

        def finish(self, batches: Sequence[Batch]) -> None:
            for part in sorted(self.chain, key=lambda part: getattr(part, "averages", False)):
                part.finish(batches)

    return Composed
