"""The picture of a tracked run: every panel, the stability line where there is one."""

import itertools
import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ssgd_analysis import plots

PARTS = ("eigenvalues", "trace", "third_order")


def records(
    parts=PARTS, *, count=3, rate=lambda share: 0.1, limit=True, measurements=20, ratio=1.0
):
    """λ_max goes from 2 to 18 with a gap in the third-order check."""
    found = []
    for index in range(measurements):
        share = index / max(1, measurements - 1)
        size = 2 + 16 * share
        lr = rate(share)
        gap = index == 3
        check = {"value": None, "stderr": None} if gap else {"value": 1 - share / 4, "stderr": 0.01}
        values = [{"value": size / (1 + i), "residual": 1e-3, "stderr": 0.2} for i in range(count)]
        whole = {
            "eigenvalues": values,
            "trace": {"value": 5 * size, "stderr": size / 4},
            "third_order": {
                "cosine": check,
                "ratio": {k: v if v is None else ratio * v for k, v in check.items()},
            },
        }
        found.append(
            {
                "step": 10 * index,
                "train_loss": math.exp(-4 * share),
                "stability_limit": 2 / lr if limit else None,
                **{part: whole[part] for part in parts},
            }
        )
    return found


CASES = {
    "all": {},
    "sharpness": {"parts": ("eigenvalues",)},
    "one eigenvalue": {"parts": ("eigenvalues",), "count": 1},
    "trace": {"parts": ("trace",)},
    "third order": {"parts": ("third_order",)},
    "adaptive": {"limit": False},
    "cosine schedule": {"rate": lambda share: 0.1 * (1.001 - share)},
    "far below the line": {"rate": lambda share: 1e-3},
    "one measurement": {"measurements": 1},
    "nothing defined": {"parts": ("third_order",), "ratio": math.nan},
    "kinks": {"parts": ("third_order",), "ratio": 3e3},
}


def figure(case):
    return plots.tracking_figure(records(**CASES[case]), limit_name="2(1 + 0.9)/lr")


@pytest.mark.parametrize("case", ["all", "one measurement", "nothing defined"])
def test_saved_as_png_and_pdf(tmp_path, case):
    for path in plots.save_figure(figure(case), tmp_path / "tracking"):
        assert path.stat().st_size > 2000


@pytest.mark.parametrize("case", CASES)
def test_nothing_overlaps_and_nothing_is_cut(case):
    picture = figure(case)
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    renderer = canvas.get_renderer()
    panels = [axes.get_window_extent(renderer) for axes in picture.axes]
    legends = [a.get_legend().get_window_extent(renderer) for a in picture.axes if a.get_legend()]
    for legend, panel in itertools.product(legends, panels):
        assert legend.y0 >= panel.y1 - 1 or legend.y1 <= panel.y0 + 1
    whole = picture.get_tightbbox(renderer)
    assert whole.x0 >= 0
    assert whole.y0 >= 0
    assert whole.x1 <= picture.get_figwidth()
    assert whole.y1 <= picture.get_figheight()
    for axes in picture.axes:
        boxes = [
            label.get_window_extent(renderer)
            for label in axes.get_yticklabels()
            if label.get_text() and label.get_visible()
        ]
        for a, b in itertools.pairwise(sorted(boxes, key=lambda box: box.y0)):
            assert not a.overlaps(b)


@pytest.mark.parametrize("case", CASES)
def test_one_panel_for_each_thing_and_one_axis_of_steps(case):
    picture = figure(case)
    parts = CASES[case].get("parts", PARTS)
    names = {"eigenvalues": "sharpness", "trace": "trace", "third_order": "third order"}
    labels = [axes.get_ylabel() for axes in picture.axes]
    assert labels == ["train loss", *(names[part] for part in parts)]
    assert [axes.get_xlabel() for axes in picture.axes] == [""] * len(parts) + ["step"]
    assert len({axes.get_xlim() for axes in picture.axes}) == 1


def legend(picture):
    return [text.get_text() for text in picture.axes[1].get_legend().get_texts()]


def test_the_line_is_there_for_gradient_descent_only():
    assert legend(figure("sharpness")) == ["the next 2", "λ_max", "2(1 + 0.9)/lr"]
    assert legend(figure("one eigenvalue")) == ["λ_max", "2(1 + 0.9)/lr"]
    assert legend(figure("adaptive")) == ["the next 2", "λ_max"]


def test_a_line_far_above_does_not_flatten_the_eigenvalues():
    far = figure("far below the line")
    assert legend(far)[-1] == "2(1 + 0.9)/lr ≥ 2e+03, above the picture"
    assert far.axes[1].get_ylim()[1] < 25
    assert figure("cosine schedule").axes[1].get_ylim()[1] < 40
    assert figure("sharpness").axes[1].get_ylim()[1] > 20  # the line at 20 is inside
