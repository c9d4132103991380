"""SGD whose labels are wrong anew at every step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import evaluation_mode


@dataclass(frozen=True, kw_only=True)
class LabelNoiseSettings(MethodSettings):
    """Settings of label-noise SGD."""

    flip: float = setting(
        0.1,
        "p: probability that a class label is another one, drawn at each step",
        minimum=0,
        maximum=1,
    )
    target_noise: float = setting(
        0.1, "σ: Gaussian noise on targets that are numbers, drawn at each step", minimum=0
    )


class LabelNoiseSGD(Method):
    """Label-noise SGD: the gradient for labels of which a share p is wrong, anew at each step.

    A wrong class is uniform among the others. Targets that are numbers get N(0, σ²) instead, as
    in the analysis of Blanc et al. 2020 (arXiv 1904.09080); Damian, Ma and Lee 2021 (arXiv
    2106.06530) show that it prefers flat minima. Unlike wrong labels in the data, these cannot
    be learnt by heart. p is that of label-noise gradient descent in arXiv 2510.17526; σ is our
    choice. The loss reported is that on the noisy labels.
    """

    Settings = LabelNoiseSettings
    needs_targets = True

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        self.classes = 0  # unknown until the first targets

    def gradient(self, batch: Batch, when: When) -> float:
        """That for noisy labels; see :meth:`Method.gradient`."""
        inputs, targets = pair(batch)
        return self.passes.backward((inputs, self._noisy(inputs, targets, when.step)))

    def _noisy(self, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        chosen, passes = self.settings, self.passes
        generator = seeds.generator(passes.seed, "labels", step, device=targets.device)
        if targets.is_floating_point():
            noise = torch.empty_like(targets).normal_(generator=generator)
            return targets + chosen.target_noise * noise
        self.classes = self.classes or self._count(inputs[:1], targets[:1])
        shape, device = targets.shape, targets.device
        wrong = torch.rand(shape, generator=generator, device=device) < chosen.flip
        offset = torch.randint(1, self.classes, shape, generator=generator, device=device)
        wrong &= targets >= 0  # a negative label says that there is none
        return torch.where(wrong, (targets + offset) % self.classes, targets)

    def _count(self, inputs: Tensor, targets: Tensor) -> int:
        """Classes that the model tells apart: a forward pass over one example, once a run."""
        with evaluation_mode(self.passes.model), torch.no_grad():
            outputs = self.passes.forward(inputs)
        if outputs.numel() == targets.numel():
            return 2  # one logit for each label tells two classes apart
        # logits of a label lie along the second axis, as torch's losses have it, or the last
        for axis in (1, outputs.ndim - 1):
            if outputs.shape[:axis] + outputs.shape[axis + 1 :] == targets.shape:
                return outputs.shape[axis]
        shapes = f"{tuple(outputs.shape)} for class labels of shape {tuple(targets.shape)}"
        raise InputError(f"label-noise-sgd: outputs of shape {shapes} have no axis of classes")
