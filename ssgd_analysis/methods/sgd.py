"""The baseline."""

from dataclasses import dataclass

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.when import When


@dataclass(frozen=True, kw_only=True)
class SGDSettings(MethodSettings):
    """Settings of SGD."""

    ghost_batch: int = setting(
        0, "examples that BatchNorm normalises over, or a few more; 0: the minibatch", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ghost_batch == 1:
            raise InputError("ghost_batch=1 should be 0 (off) or at least 2")


class SGD(Method):
    """Plain minibatch gradient: one pass a step, then the base optimizer.

    With ``ghost_batch`` the pass is made in parts of that size, so that each is normalised by
    its own statistics, and the running ones move once a part: ghost batch normalisation (Hoffer,
    Hubara and Soudry 2017, arXiv 1705.08741, algorithm 1). Without BatchNorm it changes nothing.
    """

    Settings = SGDSettings

    @classmethod
    def smallest_pass(cls, settings: SGDSettings, batch_size: int) -> int:
        """A part's, where there are parts."""
        return batch_size // _parts(settings, batch_size)

    def gradient(self, batch: Batch, when: When) -> float:
        """The minibatch's gradient; see :meth:`Method.gradient`."""
        total = self.passes.size(batch)
        count = _parts(self.settings, total)
        if count == 1:
            return self.passes.backward(batch)
        loss = 0.0
        for part in self.passes.parts(batch, count):
            share = self.passes.size(part) / total
            loss += share * self.passes.backward(part, share=share)
        return loss


def _parts(settings: SGDSettings, examples: int) -> int:
    return max(1, examples // settings.ghost_batch) if settings.ghost_batch else 1
