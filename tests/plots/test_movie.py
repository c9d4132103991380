"""The animation of a run: what moves is where the record says it is."""

import matplotlib as mpl
import numpy as np
import pytest
from landscape_records import lines, planes
from PIL import Image, ImageSequence

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.plots import movie

STEPS = 9  # kept checkpoints of the example
POINT = (0xD5, 0x5E, 0x00)  # colour of what moves


@pytest.fixture(autouse=True)
def no_ffmpeg(monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "animation.ffmpeg_path", "there-is-no-such-ffmpeg")


def ffmpeg(script, folder, monkeypatch):
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setitem(mpl.rcParams, "animation.ffmpeg_path", str(path))


def one(**options):
    return planes(names=("runs/a",), path=True, **options)


def frames(path):
    with Image.open(path) as film:
        return [
            (np.asarray(frame.convert("RGB")), frame.info["duration"])
            for frame in ImageSequence.Iterator(film)
        ]


def middles(picture):
    """Where the moving points are, pixels (x, y): left half, right half."""
    y, x = np.nonzero((picture == POINT).all(axis=2))
    half = picture.shape[1] / 2
    return [(x[side].mean(), y[side].mean()) for side in (x < half, x >= half)]


def test_the_points_are_where_the_record_says(tmp_path):
    record, arrays = one()
    (path,) = movie(record, arrays, tmp_path / "l")
    assert path.name == "l.gif"
    seen = np.array([middles(picture) for picture, _ in frames(path)])
    assert seen.shape == (STEPS, 2, 2)
    way = record["grids"][0]["path"]
    height = np.log(way["loss"])  # above a factor of 20 the axis is logarithmic
    assert max(way["loss"]) > 20 * min(way["loss"])
    expected = [[way["alpha"], way["beta"]], [way["steps"], height]]
    for panel in range(2):
        for axis in range(2):
            values = np.asarray(expected[panel][axis], float)
            pixels = seen[:, panel, axis]
            slope, start = np.polyfit(values, pixels, 1)
            # an axis is an affine map; the middle of a disc of pixels is known to half a pixel
            assert np.abs(slope * values + start - pixels).max() < 0.7
            assert (slope > 0) == (axis == 0)  # y runs down in pictures
    # one unit of alpha is as long as one of beta
    scales = [np.polyfit(expected[0][axis], seen[:, 0, axis], 1)[0] for axis in range(2)]
    assert abs(scales[0]) == pytest.approx(abs(scales[1]), rel=0.01)


def test_times_and_size(tmp_path):
    (path,) = movie(*one(), tmp_path / "l", seconds=1.8)
    times = [duration for _, duration in frames(path)]
    assert times == [200] * (STEPS - 1) + [200 + 1500]
    assert path.stat().st_size < 300_000
    assert frames(path)[0][0].shape[1] == 1035  # 6.9 inches at 150 dpi
    assert frames(path)[0][0][0, 0].tolist() == [255, 255, 255]  # paper
    with Image.open(path) as film:
        assert film.info["comment"].decode() == one()[0]["command"]
        assert film.info["loop"] == 0


def test_it_repeats_and_leaves_nothing_else(tmp_path):
    first = movie(*one(), tmp_path / "l")[0].read_bytes()
    assert first == movie(*one(), tmp_path / "l")[0].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["l.gif"]


def test_of_many_checkpoints_some_are_left_out(tmp_path):
    whole = frames(movie(*one(), tmp_path / "l")[0])
    few = frames(movie(*one(), tmp_path / "f", frames=4)[0])
    assert len(few) == 4
    for picture, same in zip(few, (0, 3, 5, 8), strict=True):
        assert middles(picture[0]) == middles(whole[same][0])


def test_a_film_for_each_run(tmp_path):
    record, arrays = planes(path=True)
    paths = movie(record, arrays, tmp_path / "l")
    assert [path.name for path in paths] == ["l-1.gif", "l-2.gif"]
    del record["grids"][0]["path"]
    assert [path.name for path in movie(record, arrays, tmp_path / "m")] == ["m-2.gif"]


def test_holes_and_losses_that_are_not_known(tmp_path):
    record, arrays = one()
    arrays["loss"][:4, :4] = np.nan
    record["grids"][0]["path"]["loss"][3] = None
    assert len(frames(movie(record, arrays, tmp_path / "l")[0])) == STEPS
    record["grids"][0]["path"]["loss"] = None
    picture, _ = frames(movie(record, arrays, tmp_path / "m")[0])[0]
    assert picture.shape[1] < 1035 / 1.9  # one panel


@pytest.mark.slow
def test_a_video_where_ffmpeg_is(tmp_path, monkeypatch):
    folder = tmp_path / "film"
    folder.mkdir()
    # what it is given is written as it is: whole pictures of four bytes a pixel
    ffmpeg('for to; do :; done; cat > "$to"', tmp_path, monkeypatch)
    paths = movie(*one(), folder / "l")
    assert [path.name for path in paths] == ["l.gif", "l.mp4"]
    height = frames(paths[0])[0][0].shape[0]
    raw = np.fromfile(paths[1], np.uint8).reshape(-1, height // 2 * 2, 1034, 4)  # even sides
    assert len(raw) == STEPS + 1500 // 400
    seen = [middles(picture[..., :3])[0] for picture in raw[:STEPS]]
    still = [middles(picture)[0] for picture, _ in frames(paths[0])]
    assert np.abs(np.array(seen) - still).max() < 2  # pixels: the sides differ by one


@pytest.mark.slow
@pytest.mark.parametrize("script", ["cat > /dev/null; exit 1", "exit 1"])
def test_an_ffmpeg_that_fails(tmp_path, monkeypatch, script):
    folder = tmp_path / "film"
    folder.mkdir()
    ffmpeg(script, tmp_path, monkeypatch)
    with pytest.raises(WorkError, match=r"l\.mp4"):
        movie(*one(), folder / "l")
    assert [path.name for path in folder.iterdir()] == ["l.gif"]


@pytest.mark.parametrize("make", [lines, planes])
def test_without_a_path(tmp_path, make):
    with pytest.raises(InputError, match="--dims 2 --directions trajectory"):
        movie(*make(), tmp_path / "l")
