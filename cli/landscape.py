"""``ssgd-analyze landscape``."""

import dataclasses
from pathlib import Path
from typing import Any

import click
from ssgd_analysis.cli import console
from ssgd_analysis.cli.options import (
    AMOUNT,
    COUNT,
    checkpoint_options,
    computing,
    example,
    json_option,
    load_checkpoints,
)


@click.command(
    epilog=example(
        "ssgd-analyze train --method sgd --data digits --model mlp --epochs 5 --out "
        "runs/landscape --resume && ssgd-analyze landscape runs/landscape --dims 2 --points "
        "15 --out pictures"
    )
)
@checkpoint_options
@click.option("--dims", type=int, default=1, help="1 or 2 (default: 1).")
@click.option(
    "--directions", default="random", help="random, eigen, trajectory or between (default: random)."
)
@click.option("--normalize", help="filter, layer or none (default: filter; none but for random).")
@click.option(
    "--span", type=AMOUNT, help="From -F to F (default: 1; between: 0.5 beyond each end)."
)
@click.option("--points", type=COUNT, help="For each axis (default: 41; 2-D: 21).")
@click.option(
    "--repeats", type=COUNT, default=1, help="Random directions sampled, for a band (default: 1)."
)
@click.option(
    "--bn", default="frozen", help="BatchNorm statistics: frozen or recalibrate (default: frozen)."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("landscape"),
    help="Folder for arrays and pictures (default: landscape).",
)
@click.option("--html", is_flag=True, help="Also an interactive surface in one file.")
@click.option("--resume", is_flag=True, help="Go on with a call that was stopped.")
@json_option
@computing
def command(
    checkpoints: tuple[str, ...],
    dims: int,
    directions: str,
    normalize: str | None,
    span: float | None,
    points: int | None,
    repeats: int,
    bn: str,
    out: Path,
    html: bool,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw the loss around one or more checkpoints, on shared directions and one scale.

    Writes landscape.npz, landscape.json and pictures. With filter or layer normalisation alpha
    is a fraction of each filter's or layer's norm; with none it is a distance. `between` draws
    the straight line from the first checkpoint (alpha 0) to the second (alpha 1).
    """
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import make_folder, write_json
    from ssgd_analysis.landscape import (
        LandscapeSettings,
        Subject,
        fingerprint,
        sample_landscape,
        save_arrays,
    )
    from ssgd_analysis.training.state import read_tensors

    between = directions == "between"
    if between and normalize not in (None, "none"):
        raise InputError("--directions between is the line itself: leave out --normalize")
    settings = LandscapeSettings(
        dims=dims,
        directions=directions,
        normalize=normalize or ("filter" if directions == "random" else "none"),
        span=(0.5 if between else 1.0) if span is None else span,
        points=points or (41 if dims == 1 else 21),
        repeats=repeats,
        bn=bn,
        seed=options["seed"],
    )
    subjects = []
    for checkpoint in load_checkpoints(checkpoints, options):
        problem = checkpoint.problem(
            options["split"], samples=options["samples"], batch_size=options["batch_size"] or 512
        )
        problem.check()
        path = []
        if directions == "trajectory":
            if checkpoint.run is None:
                raise InputError(f"{checkpoint.name} is not inside a run: it has no trajectory")
            path = [read_tensors(file)[0] for file in checkpoint.run.checkpoints().values()]
        calibration = checkpoint.data.train.batches(512)
        subjects.append(Subject(checkpoint.name, problem, calibration, path, str(options["loss"])))
    asked = {key: options[key] for key in ("split", "samples", "model", "data", "loss", "dtype")}
    identity = {
        "command": _command(checkpoints, settings, asked, out),
        "fingerprint": fingerprint(subjects, settings),
    }
    if resume and (done := _finished(out, identity, html)):
        console.say(f"{out} is finished; nothing to do")
        _answer(done, as_json)
        return
    make_folder(out)
    keep = out / "landscape.partial.npz"
    with console.Display() as progress:
        names, arrays, facts = sample_landscape(
            subjects, settings, keep=keep, resume=resume, progress=progress
        )
    save_arrays(out / "landscape.npz", arrays)
    record = {
        "settings": dataclasses.asdict(settings),
        "checkpoints": list(checkpoints),
        "grids": facts,
        **asked,
        "axes": {name: list(array.shape) for name, array in arrays.items()},
        **identity,
    }
    label = f"{options['split']} loss"
    pictures = _draw(names, arrays, settings, out, label)
    if html:
        pictures.append(_surface(names, arrays, settings, out, label))
    answer = {**record, "out": str(out), "pictures": [str(picture) for picture in pictures]}
    write_json(out / "landscape.json", answer)
    keep.unlink(missing_ok=True)
    _answer(answer, as_json)


def _answer(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.answer_json(answer)
        return
    out = Path(answer["out"])
    for written in (out / "landscape.npz", out / "landscape.json", *answer["pictures"]):
        console.answer(str(written))


def _finished(out: Path, identity: dict[str, str], html: bool) -> dict[str, Any] | None:
    """The answer of the same call, if it came to its end and all that it wrote is there."""
    from ssgd_analysis.errors import InputError
    from ssgd_analysis.files import read_json

    try:
        found = read_json(out / "landscape.json")
    except InputError:
        return None
    if not isinstance(found, dict) or any(found.get(k) != v for k, v in identity.items()):
        return None
    pictures = [Path(picture) for picture in found["pictures"]]
    whole = all(path.is_file() for path in (out / "landscape.npz", *pictures))
    return found if whole and (not html or out / "landscape.html" in pictures) else None


def _command(checkpoints: tuple[str, ...], settings: Any, asked: dict[str, Any], out: Path) -> str:
    """The command line that makes the same landscape again."""
    import shlex

    parts = ["ssgd-analyze", "landscape", *checkpoints]
    for name, value in {**dataclasses.asdict(settings), **asked, "out": out}.items():
        if value is not None and not (name == "normalize" and settings.directions == "between"):
            parts += [f"--{name}", str(value)]
    return shlex.join(parts)


def _grids(arrays: dict[str, Any], settings: Any) -> Any:
    return arrays["loss"].reshape(-1, *arrays["loss"].shape[-settings.dims :])


def _draw(
    names: list[str], arrays: dict[str, Any], settings: Any, out: Path, label: str
) -> list[Path]:
    from ssgd_analysis.plots import loss_bands, loss_contours, save_figure

    unit = {"filter": "fraction of filter norm", "layer": "fraction of layer norm"}
    grids = _grids(arrays, settings)
    if settings.dims == 2:
        planes = {
            name: (arrays["alpha"], arrays["beta"], grid)
            for name, grid in zip(names, grids, strict=True)
        }
        return save_figure(loss_contours(planes, label=label), out / "landscape")
    if settings.directions == "between":
        xlabel = "α (0: first checkpoint, 1: second)"
    else:
        xlabel = f"α ({unit.get(settings.normalize, 'distance')})"
    rows = grids.reshape(-1, settings.repeats, grids.shape[-1])
    lines = {
        (name.rpartition(" #")[0] if settings.repeats > 1 else name): (arrays["alpha"], row)
        for name, row in zip(names[:: settings.repeats], rows, strict=True)
    }
    return save_figure(loss_bands({"": lines}, xlabel=xlabel, ylabel=label), out / "landscape")


def _surface(
    names: list[str], arrays: dict[str, Any], settings: Any, out: Path, label: str
) -> Path:
    from ssgd_analysis.plots import surface_html

    planes = {
        name: (arrays["alpha"], arrays.get("beta"), grid)
        for name, grid in zip(names, _grids(arrays, settings), strict=True)
    }
    return surface_html(planes, out / "landscape.html", label=label)
