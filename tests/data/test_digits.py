import hashlib

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ssgd_analysis.data import load_data

# blake2b of the 1,297 training images in order, one byte a pixel: the split is fixed for good,
# because published numbers stand on it.
TRAIN_IMAGES = "62c440dfe15a88b9"


def _rows(inputs: torch.Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in inputs.reshape(len(inputs), -1)]


def test_shapes_and_range():
    data = load_data("digits")
    assert data.train.inputs.shape == (1297, 1, 8, 8)
    assert data.test.inputs.shape == (500, 1, 8, 8)
    assert data.train.inputs.dtype == torch.float32
    assert data.train.targets.dtype == torch.int64
    assert data.train.inputs.min() == 0
    assert data.train.inputs.max() == 1
    assert (data.input_shape, data.num_outputs, data.classification) == ((1, 8, 8), 10, True)
    assert data.augment is None
    assert data.val is None


def test_the_split_holds_every_image_once():
    data = load_data("digits")
    images, labels = load_digits(return_X_y=True)
    every = torch.tensor(images / 16, dtype=torch.float32)
    loaded = zip(
        _rows(torch.cat([data.train.inputs, data.test.inputs])),
        torch.cat([data.train.targets, data.test.targets]).tolist(),
        strict=True,
    )
    assert sorted(loaded) == sorted(zip(_rows(every), labels.tolist(), strict=True))


def test_the_split_is_stratified():
    data = load_data("digits")
    train = data.train.targets.bincount(minlength=10)
    test = data.test.targets.bincount(minlength=10)
    exact = (train + test) * (500 / 1797)
    assert (test - exact).abs().max() < 1  # a class is off by less than one example


def test_the_split_is_that_of_scikit_learn():
    data = load_data("digits")
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=500, random_state=0, stratify=labels)
    for split, pixels, classes in zip((data.train, data.test), parts[:2], parts[2:], strict=True):
        assert torch.equal(split.inputs.reshape(-1, 64), torch.tensor(pixels / 16).float())
        assert split.targets.tolist() == classes.tolist()


def test_the_split_is_the_same_on_every_load():
    torch.manual_seed(1)
    first = load_data("digits")
    torch.manual_seed(2)
    second = load_data("digits")
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert torch.equal(first.test.targets, second.test.targets)
    content = (first.train.inputs * 16).byte().numpy().tobytes()
    assert hashlib.blake2b(content, digest_size=8).hexdigest() == TRAIN_IMAGES
