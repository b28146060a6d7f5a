"""Samples and labels of a data set as what modules and losses of PyTorch take."""

from typing import Any

import numpy as np
import torch
from torch import nn

from repast_dist.training.datasets.records import apart

CPU = torch.device("cpu")


def to_tensors(
    values: np.ndarray, real: torch.dtype = torch.float64, device: torch.device = CPU
) -> Any:
    """Return inputs or labels as tensors.

    Parameters
    ----------
    values : (N, ...) ndarray
        Samples; of records, the arrays that they hold.
    real : dtype
        Type of real numbers; whole ones become int64, truth values stay what they are.
    device : device
        Where they are put.

    Returns
    -------
    Tensor, tuple or dict of Tensor
        One array; several in their order; several by name.
    """
    parts = apart(values)
    if isinstance(parts, tuple):
        return tuple(_tensor(part, real).to(device) for part in parts)
    if isinstance(parts, dict):
        return {name: _tensor(part, real).to(device) for name, part in parts.items()}
    return _tensor(parts, real).to(device)


def called(
    module: nn.Module,
    inputs: np.ndarray,
    real: torch.dtype = torch.float64,
    device: torch.device = CPU,
) -> Any:
    """Return what a module makes of samples, each array of them an argument.

    Parameters
    ----------
    module : Module
        Called with one tensor, with several, or with several by name.
    inputs : (N, ...) ndarray
        The samples.
    real, device
        As of `to_tensors`.
    """
    given = to_tensors(inputs, real, device)
    if isinstance(given, dict):
        return module(**given)
    return module(*given) if isinstance(given, tuple) else module(given)


def device_of(results: Any) -> torch.device:
    """Return where the first tensor of what a module returned is."""
    if isinstance(results, torch.Tensor):
        return results.device
    if hasattr(results, "logits"):
        return device_of(results.logits)
    parts = results.values() if isinstance(results, dict) else results
    return device_of(next(iter(parts))) if isinstance(results, dict | list | tuple) else CPU


def _tensor(values: np.ndarray, real: torch.dtype) -> torch.Tensor:
    if values.dtype.kind == "f":
        return torch.from_numpy(values.astype(np.float64)).to(real)
    return torch.from_numpy(values.astype(bool if values.dtype.kind == "b" else np.int64))
