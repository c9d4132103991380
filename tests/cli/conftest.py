"""Runs that tests of several commands measure; none of them changes what was trained."""

import pytest


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Two methods, two seeds, with kept checkpoints."""
    from ssgd_analysis.runs import TrainConfig
    from ssgd_analysis.training import train

    folder = tmp_path_factory.mktemp("runs")
    for method in ("sgd", "s-sgd"):
        for seed in (0, 1):
            config = TrainConfig(
                method=method, data="digits", model="mlp", epochs=2, batch_size=100,
                save_every=1, seed=seed,
            )  # fmt: skip
            train(config, folder / f"{method}-{seed}")
    return folder


@pytest.fixture(scope="session")
def convolutions(tmp_path_factory):
    """Dearer to measure than the fully connected ones of ``runs``."""
    from ssgd_analysis.runs import TrainConfig
    from ssgd_analysis.training import train

    folder = tmp_path_factory.mktemp("convolutions") / "sgd-0"
    train(
        TrainConfig(
            method="sgd", data="digits", model="cnn", epochs=2, batch_size=100, save_every=1
        ),
        folder,
    )
    return folder
