"""Real data sets: shipped with a package, or read from files; nothing is downloaded."""

from repast_dist.training.datasets.dataset import Dataset, load_dataset

__all__ = ["Dataset", "load_dataset"]
