"""How one minibatch becomes one update: S-SGD and its rivals."""

import functools

from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.methods.aliases import with_optimizer
from ssgd_analysis.methods.alternating import AlternatingWeightNoise
from ssgd_analysis.methods.anti_pgd import AntiPGD
from ssgd_analysis.methods.arwp import AdaptiveRandomWeightPerturbation
from ssgd_analysis.methods.asam import ASAM
from ssgd_analysis.methods.base import Method, MethodSettings, make_settings, parse_settings
from ssgd_analysis.methods.compose import Wrapper, composed
from ssgd_analysis.methods.ema import EMA
from ssgd_analysis.methods.entropy_sgd import EntropySGD
from ssgd_analysis.methods.esam import ESAM
from ssgd_analysis.methods.gradient_noise import GradientNoise
from ssgd_analysis.methods.gradient_penalty import GradientPenalty
from ssgd_analysis.methods.gsam import GSAM
from ssgd_analysis.methods.label_noise_sgd import LabelNoiseSGD
from ssgd_analysis.methods.lookahead import Lookahead
from ssgd_analysis.methods.looksam import LookSAM
from ssgd_analysis.methods.lpf_sgd import LowPassFilterSGD
from ssgd_analysis.methods.m_arwp import MixedAdaptiveRWP
from ssgd_analysis.methods.nso import NoiseStabilityOptimization
from ssgd_analysis.methods.optimizer import SSGD
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.rwp import RandomWeightPerturbation
from ssgd_analysis.methods.s_sgd import SymmetricSGD
from ssgd_analysis.methods.sam import SAM
from ssgd_analysis.methods.sgd import SGD
from ssgd_analysis.methods.sgld import SGLD
from ssgd_analysis.methods.smoothout import SmoothOut
from ssgd_analysis.methods.swa import SWA
from ssgd_analysis.methods.when import When
from ssgd_analysis.methods.wni import WeightNoiseInjection
from ssgd_analysis.methods.wni_2 import TwoDrawWeightNoise

# One line a method: `list methods`, circularity and the conformance tests go by this table.
METHODS: dict[str, type[Method]] = {
    "sgd": SGD,
    "s-sgd": SymmetricSGD,
    "wni": WeightNoiseInjection,
    "wni-2": TwoDrawWeightNoise,
    "alternating": AlternatingWeightNoise,
    "nso": NoiseStabilityOptimization,
    "smoothout": SmoothOut,
    "anti-pgd": AntiPGD,
    "lpf-sgd": LowPassFilterSGD,
    "rwp": RandomWeightPerturbation,
    "arwp": AdaptiveRandomWeightPerturbation,
    "m-arwp": MixedAdaptiveRWP,
    "entropy-sgd": EntropySGD,
    "sgld": SGLD,
    "label-noise-sgd": LabelNoiseSGD,
    "gradient-noise": GradientNoise,
    "sam": SAM,
    "asam": ASAM,
    "gsam": GSAM,
    "esam": ESAM,
    "looksam": LookSAM,
    "gradient-penalty": GradientPenalty,
    "adam": with_optimizer(
        "adam",
        "Adam: the plain gradient, one pass a step, then Adam steps with it.",
        source="Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1; torch's",
    ),
    "adamw": with_optimizer(
        "adamw",
        "AdamW: the plain gradient, one pass a step, then AdamW steps with it.",
        source="Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2; torch's",
    ),
    "muon": with_optimizer(
        "muon",
        "Muon: the plain gradient; hidden matrices take orthogonalised momentum steps.",
        source="Jordan et al. 2024; see the optimizer ``Muon``",
    ),
    "lars": with_optimizer(
        "lars",
        "LARS: the plain gradient; each layer's step is a share of its weights' norm.",
        source="You, Gitman and Ginsburg 2017 (arXiv 1708.03888); see the optimizer ``LARS``",
    ),
    "lamb": with_optimizer(
        "lamb",
        "LAMB: the plain gradient; Adam's step, scaled in each layer to its weights' norm.",
        source="You et al. 2020 (arXiv 1904.00962); see the optimizer ``LAMB``",
    ),
}

# Around the steps of any of the above: `s-sgd+ema`; alone, around SGD's.
WRAPPERS: dict[str, type[Wrapper]] = {"ema": EMA, "swa": SWA, "lookahead": Lookahead}


@functools.cache
def find_method(name: str) -> type[Method]:
    """The method that a name stands for: one of :data:`METHODS`, or several joined by ``+``.

    ``s-sgd+ema`` is S-SGD inside the wrapper EMA; ``ema`` alone is ``sgd+ema``.

    Raises:
        InputError: an unknown name, a method that is no wrapper after a ``+``, or one twice.

    Example:
        >>> find_method("s-sgd+ema").passes_per_step(find_method("s-sgd+ema").Settings())
        2.0
    """
    first, *rest = name.split("+")
    if first in WRAPPERS:
        first, rest = "sgd", [first, *rest]
    for part in rest:
        if part in METHODS and part not in WRAPPERS:
            raise InputError(f"method '{name}': only wrappers can follow + ({', '.join(WRAPPERS)})")
        if part not in WRAPPERS:
            raise unknown("wrapper", part, WRAPPERS)
    if len(set(rest)) < len(rest):
        raise InputError(f"method '{name}' names a wrapper twice")
    if first not in METHODS:
        raise unknown("method", first, list(METHODS))
    if not rest:
        return METHODS[first]
    made = composed(METHODS[first], [WRAPPERS[part] for part in rest])
    if name in WRAPPERS:  # alone it is described without the SGD inside
        made.__doc__ = WRAPPERS[name].__doc__
    return made


METHODS |= {name: find_method(name) for name in WRAPPERS}

__all__ = [
    "METHODS",
    "SSGD",
    "WRAPPERS",
    "Method",
    "MethodSettings",
    "Passes",
    "When",
    "find_method",
    "make_settings",
    "parse_settings",
]
