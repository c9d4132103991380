"""torchvision's data sets, read from small files in their true on-disk format."""

import hashlib
import pickle
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from ssgd_analysis.data import DATA, Dataset, load_data
from ssgd_analysis.data.augment import crop, crop_and_flip
from ssgd_analysis.errors import InputError

TRAIN, TEST = 30, 20  # 30 in five batches of CIFAR-10


@dataclass(frozen=True)
class Stored:
    """Images (N, channels, height, width) and labels of both splits, as they should come out."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def _random(channels: int, side: int, classes: int) -> Stored:
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        images = rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8)
        return images, rng.permutation(np.arange(count) % classes)

    return Stored(part(TRAIN), part(TEST))


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


# The formats


def _idx(path: Path, values: np.ndarray) -> None:
    """LeCun's idx: two zero bytes, type 8 (unsigned byte), axes, their lengths big-endian."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes()
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def _write_mnist(folder: Path, name: str) -> Stored:
    stored = _random(1, 28, 10)
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    for prefix, (images, labels) in (("train", stored.train), ("t10k", stored.test)):
        _idx(raw / f"{prefix}-images-idx3-ubyte", images[:, 0])
        _idx(raw / f"{prefix}-labels-idx1-ubyte", labels)
    return stored


def _pickle(path: Path, content: dict[str, object]) -> list[str]:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return [path.name, _md5(path)]


def _cifar_batch(path: Path, images: np.ndarray, labels: np.ndarray, key: str) -> list[str]:
    flat = images.reshape(len(images), -1)  # red plane, green plane, blue plane
    return _pickle(path, {"data": flat, key: labels.tolist()})


def _write_cifar(
    folder: Path, patch: pytest.MonkeyPatch, source: type[datasets.CIFAR10], classes: int
) -> Stored:
    """The pickled batches, with the checksums of these small ones."""
    stored = _random(3, 32, classes)
    base = folder / source.base_folder
    base.mkdir(parents=True)
    names = [name for name, _ in source.train_list]
    key = "labels" if classes == 10 else "fine_labels"
    parts = zip(
        names,
        np.array_split(stored.train[0], len(names)),
        np.array_split(stored.train[1], len(names)),
        strict=True,
    )
    train = [_cifar_batch(base / name, images, labels, key) for name, images, labels in parts]
    test = [_cifar_batch(base / source.test_list[0][0], *stored.test, key)]
    _, md5 = _pickle(base / source.meta["filename"], {source.meta["key"]: ["a", "b"]})
    patch.setattr(source, "train_list", train)
    patch.setattr(source, "test_list", test)
    patch.setattr(source, "meta", {**source.meta, "md5": md5})
    return stored


def _write_svhn(folder: Path, patch: pytest.MonkeyPatch) -> Stored:
    """MATLAB files: (height, width, channels, N), and the digit 0 is labelled 10."""
    stored = _random(3, 32, 10)
    split_list = dict(datasets.SVHN.split_list)
    for split, (images, labels) in (("train", stored.train), ("test", stored.test)):
        path = folder / f"{split}_32x32.mat"
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        scipy.io.savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": y})
        split_list[split] = [split_list[split][0], path.name, _md5(path)]
    patch.setattr(datasets.SVHN, "split_list", split_list)
    return stored


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Stored]] = {
    "mnist": lambda folder, patch: _write_mnist(folder, "MNIST"),
    "fashion_mnist": lambda folder, patch: _write_mnist(folder, "FashionMNIST"),
    "kmnist": lambda folder, patch: _write_mnist(folder, "KMNIST"),
    "cifar10": lambda folder, patch: _write_cifar(folder, patch, datasets.CIFAR10, 10),
    "cifar100": lambda folder, patch: _write_cifar(folder, patch, datasets.CIFAR100, 20),
    "svhn": _write_svhn,
}
AUGMENTATION = {"cifar10": crop_and_flip, "cifar100": crop_and_flip, "svhn": crop}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A machine without network, wherever the tests run."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture(params=WRITERS)
def loaded(request, tmp_path, monkeypatch) -> tuple[str, Stored, Dataset]:
    stored = WRITERS[request.param](tmp_path, monkeypatch)
    return request.param, stored, load_data(request.param, tmp_path)


def test_every_image_data_set_is_written_here():
    generated = {"digits", "mnist1d", "two_moons", "standin-cifar10", "standin-cifar100"}
    assert set(DATA) == set(WRITERS) | generated


def test_labels_and_shapes(loaded):
    name, stored, data = loaded
    assert data.name == name
    assert data.train.targets.tolist() == stored.train[1].tolist()
    assert data.test.targets.tolist() == stored.test[1].tolist()
    assert data.train.targets.dtype == torch.int64
    assert data.train.inputs.shape == stored.train[0].shape
    assert data.test.inputs.shape == stored.test[0].shape
    assert data.train.inputs.dtype == torch.float32
    assert data.num_outputs == (20 if name == "cifar100" else 10)
    assert data.augment is AUGMENTATION.get(name)


def test_each_channel_is_normalised_over_train(loaded):
    _, _, data = loaded
    # float32 sums over at least 23,520 pixels: 1e-5 is a hundred roundings.
    assert data.train.inputs.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (data.train.inputs.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-5


def test_pixels_are_where_they_were(loaded):
    """Undo the normalisation with numbers of the stored files: the bytes come out."""
    _, stored, data = loaded
    pixels = stored.train[0].astype(np.float64)
    mean, std = (np.array(f(pixels, axis=(0, 2, 3), keepdims=True)) for f in (np.mean, np.std))
    for split, images in ((data.train, stored.train[0]), (data.test, stored.test[0])):
        undone = split.inputs.double().numpy() * std + mean
        # np.std divides by N, torch by N − 1: relative 2e-5 of up to 2 std, plus float32
        # rounding: 0.01 of a grey level, where the next one is 1 away.
        assert np.abs(undone - images).max() < 0.01


@pytest.mark.parametrize("name", WRITERS)
def test_missing_files_without_network_say_where_to_put_them(name, tmp_path):
    folder = tmp_path / "data"
    with pytest.raises(InputError) as caught:
        load_data(name, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    assert name in message
    assert "--data-dir" in message


@pytest.mark.parametrize(("name", "place"), [("mnist", "MNIST/raw"), ("svhn", "train_32x32.mat")])
def test_the_message_names_the_files(name, place, tmp_path):
    with pytest.raises(InputError, match=place):
        load_data(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_a_truncated_file_is_one_clear_line(name, file, tmp_path, monkeypatch):
    WRITERS[name](tmp_path, monkeypatch)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError) as caught:
        load_data(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file"):
        load_data("mnist", tmp_path / "file" / "below")
