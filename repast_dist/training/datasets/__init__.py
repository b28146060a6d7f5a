"""Data sets are shipped with a package or read from files; nothing is downloaded."""

from repast_dist.training.datasets.base import DATASETS, Dataset, DataSource

__all__ = ["DATASETS", "DataSource", "Dataset"]
