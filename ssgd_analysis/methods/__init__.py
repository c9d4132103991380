"""How one minibatch becomes one update: S-SGD and its rivals."""

from ssgd_analysis.methods.base import Method, MethodSettings, Task, make_settings, parse_settings
from ssgd_analysis.methods.optimizer import SSGD
from ssgd_analysis.methods.s_sgd import SymmetricSGD
from ssgd_analysis.methods.sam import SAM
from ssgd_analysis.methods.sgd import SGD
from ssgd_analysis.methods.wni import WeightNoiseInjection
from ssgd_analysis.methods.wni_2 import TwoDrawWeightNoise

METHODS: dict[str, type[Method]] = {
    "sgd": SGD,
    "s-sgd": SymmetricSGD,
    "wni": WeightNoiseInjection,
    "wni-2": TwoDrawWeightNoise,
    "sam": SAM,
}

__all__ = ["METHODS", "SSGD", "Method", "MethodSettings", "Task", "make_settings", "parse_settings"]
