"""The examples of a run."""

from pathlib import Path

from ssgd_analysis import seeds
from ssgd_analysis.data import Dataset, load_data
from ssgd_analysis.models import load_count
from ssgd_analysis.runs.config import TrainConfig


def prepare_data(config: TrainConfig, folder: Path | None = None) -> Dataset:
    """A run's examples: loaded, held out, with its label noise; on the CPU, floats keep their type.

    Args:
        config: of the run.
        folder: for data files, instead of the config's.
    """
    data = load_data(
        config.data,
        folder or config.data_folder,
        stream=config.stream,
        count=load_count(config.count),
    )
    data = data.with_validation(config.val, seeds.generator(config.seed, "validation"))
    generator = seeds.generator(config.seed, "train samples")
    data = data.with_train_samples(config.train_samples, generator)
    return data.with_label_noise(config.label_noise, seeds.generator(config.seed, "label noise"))
