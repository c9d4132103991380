"""The settings of ``ssgd-analyze train``: those of a resumed run, and those that were given."""

from typing import Any

import click

from ssgd_analysis.errors import InputError


def settings_of(
    stored: dict[str, Any],
    given: dict[str, Any],
    assignments: tuple[str, ...],
    optimizer_assignments: tuple[str, ...],
) -> dict[str, Any]:
    """The fields of the run's ``TrainConfig``.

    Args:
        stored: the fields of a run that is resumed; else empty.
        given: options of the command line by name; they replace the stored fields.
        assignments: of ``--set``.
        optimizer_assignments: of ``--optimizer-set``.

    Raises:
        InputError: a missing option, or a setting that does not exist.
    """
    from ssgd_analysis.runs import TrainConfig
    from ssgd_analysis.settings import read_assignments

    chosen = {**stored, **_asked_for(stored, given)}
    for key in ("method", "data", "model"):
        if key not in chosen:
            raise InputError(f"missing option --{key}")
    if assignments:
        chosen["settings"] = TrainConfig.parsed_settings(chosen["method"], list(assignments))
    if optimizer_assignments:
        chosen["optimizer_settings"] = read_assignments("--optimizer-set", optimizer_assignments)
    return chosen


def _asked_for(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The given options; a resumed run keeps its seed and device unless others are typed."""
    from ssgd_analysis.devices import resolve_device

    chosen = dict(given)
    if "data_dir" in chosen:
        chosen["data_dir"] = str(chosen["data_dir"].resolve())
    context = click.get_current_context()
    for key in ("seed", "device"):
        default = context.get_parameter_source(key) is click.core.ParameterSource.DEFAULT
        if stored and default:
            chosen[key] = stored[key]
    if stored:
        resolve_device(chosen["device"])  # it may be another machine
    return chosen
