"""What weights of any origin were trained with, as far as the user says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.methods import Method, MethodSettings, find_method, parse_settings


@dataclass(frozen=True)
class TrainedWith:
    """A method and its settings, which say what it trained on.

    Args:
        method: its name, see ``ssgd-analyze list methods``.
        chosen: its settings.
        schedule: of the learning rate, which the noise of some methods follows.

    Example:
        >>> TrainedWith.read("sam:rho=0.1").chosen.rho
        0.1
    """

    method: str
    chosen: MethodSettings
    schedule: str = "constant"

    @classmethod
    def read(cls, text: str) -> "TrainedWith":
        """A method with settings that are not the default ones, as ``sam:rho=0.1,…``.

        Raises:
            InputError: an unknown method or setting, or a value that does not fit.
        """
        method, _, settings = text.partition(":")
        assignments = [part.strip() for part in settings.split(",") if part.strip()]
        try:
            return cls(method, parse_settings(method, find_method(method), assignments))
        except InputError as error:
            raise InputError(f"--trained-with {text}: {error}") from error

    @property
    def method_class(self) -> type[Method]:
        """The class that the name stands for."""
        return find_method(self.method)

    def method_settings(self) -> MethodSettings:
        """The settings."""
        return self.chosen


def read_trained_with(given: Mapping[str, str], labels: Sequence[str]) -> dict[str, TrainedWith]:
    """The trainings of groups, by label.

    Args:
        given: label → method with settings.
        labels: of the groups of weights.

    Raises:
        InputError: a label that there is not, or as :meth:`TrainedWith.read`.
    """
    for label in given:
        if label not in labels:
            raise unknown("label of --trained-with", label, labels)
    return {label: TrainedWith.read(text) for label, text in given.items()}
