import pytest
import torch
from torch import Tensor

from ssgd_analysis.data.augment import crop, crop_and_flip


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int, height: int = 6, width: int = 9) -> Tensor:
    return torch.randn(count, 3, height, width, generator=_generator(1), dtype=torch.float64)


def _padded(image: Tensor, padding: int) -> Tensor:
    channels, height, width = image.shape
    wide = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=image.dtype)
    wide[:, padding : padding + height, padding : padding + width] = image
    return wide


def _window(image: Tensor, cut: Tensor, padding: int) -> tuple[int, int] | None:
    """Where the cut lies in the padded image; slow and literal."""
    wide = _padded(image, padding)
    _, height, width = image.shape
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            if torch.equal(wide[:, top : top + height, left : left + width], cut):
                return top, left
    return None


def test_every_crop_is_a_window_of_its_own_padded_image():
    images = _images(60)
    cuts = crop(images, _generator(), padding=2)
    assert cuts.shape == images.shape
    assert cuts.dtype == images.dtype
    found = [_window(image, cut, 2) for image, cut in zip(images, cuts, strict=True)]
    assert None not in found
    # Each of 5 offsets is drawn 60 times with p = 1/5: all occur but for 5·0.8^60 < 1e-5.
    assert {top for top, _ in found} == {left for _, left in found} == set(range(5))


def test_rows_and_columns_are_drawn_apart():
    found = [
        _window(image, cut, 2)
        for image, cut in zip(_images(60), crop(_images(60), _generator(), 2), strict=True)
    ]
    assert len(set(found)) > 10  # of 25; a shared offset would give 5


def test_every_crop_and_flip_is_a_window_mirrored_or_not():
    images = _images(60)
    cuts = crop_and_flip(images, _generator())
    plain = [_window(image, cut, 4) for image, cut in zip(images, cuts, strict=True)]
    mirrored = [_window(image.flip(-1), cut, 4) for image, cut in zip(images, cuts, strict=True)]
    assert all((a is None) != (b is None) for a, b in zip(plain, mirrored, strict=True))
    flipped = sum(place is not None for place in mirrored)
    assert 10 < flipped < 50  # binomial(60, ½): standard deviation 3.9, five of them
    assert {top for top, _ in [*filter(None, plain), *filter(None, mirrored)]} >= {0, 8}


def test_no_padding_changes_nothing():
    images = _images(5)
    assert torch.equal(crop(images, _generator(), padding=0), images)


@pytest.mark.parametrize("augment", [crop, crop_and_flip])
def test_augmentation_follows_the_generator_and_leaves_its_input_alone(augment):
    images = _images(30)
    before = images.clone()
    torch.manual_seed(0)
    first = augment(images, _generator(3))
    torch.manual_seed(1)
    assert torch.equal(augment(images, _generator(3)), first)
    assert not torch.equal(augment(images, _generator(4)), first)
    assert torch.equal(images, before)


def test_one_channel_and_one_image():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    cut = crop(image, _generator(), padding=1)
    assert cut.shape == (1, 1, 4, 4)
    assert _window(image[0], cut[0], 1) is not None
