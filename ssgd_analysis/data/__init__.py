"""What examples there are: tensors on a device, minibatches by index, batched augmentation."""

from ssgd_analysis.data.batched import BatchedSplit
from ssgd_analysis.data.dataset import Dataset, Split
from ssgd_analysis.data.load import DATA, DataEntry, default_folder, load_data

__all__ = ["DATA", "BatchedSplit", "DataEntry", "Dataset", "Split", "default_folder", "load_data"]
