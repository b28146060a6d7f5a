"""Array functions that layers are made of; images are (N, C, H, W), float64."""

from typing import Any

import numpy as np

from repast_dist.network.patch_loops import add_back, cut


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the pixels along one side after a convolution."""
    return (size + 2 * padding - kernel) // stride + 1


def im2col(images: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """Return the patches a convolution sees, one per row.

    Parameters
    ----------
    images : (N, C, H, W) ndarray
    kernel, stride, padding : int
        In pixels.

    Returns
    -------
    (N * H' * W', C * kernel * kernel) ndarray
        Rows run over samples, then output rows, then output columns; columns over channels, then
        kernel rows, then kernel columns.
    """
    n, channels, height, width = images.shape
    out_h = output_size(height, kernel, stride, padding)
    out_w = output_size(width, kernel, stride, padding)
    padded = images
    if padding:
        padded, inside = _padded(images.shape, padding, images.dtype)
        inside[:] = images
    inputs = channels * kernel * kernel
    columns = np.empty((n, out_h, out_w, inputs), images.dtype)
    cut(padded, kernel, stride, columns)
    return columns.reshape(n * out_h * out_w, inputs)


def col2im(
    columns: np.ndarray, shape: tuple[int, ...], kernel: int, stride: int, padding: int
) -> np.ndarray:
    """Add patches back to where they were cut from: the adjoint of `im2col`.

    Parameters
    ----------
    columns : (N * H' * W', C * kernel * kernel) ndarray
    shape : tuple
        (N, C, H, W) of the result.
    """
    n, channels, height, width = shape
    out_h = output_size(height, kernel, stride, padding)
    out_w = output_size(width, kernel, stride, padding)
    padded, inside = _padded(shape, padding, columns.dtype)
    patches = columns.reshape(n, out_h, out_w, channels * kernel * kernel)
    add_back(patches, kernel, stride, padded)
    return inside


def _padded(
    shape: tuple[int, ...], padding: int, dtype: np.dtype[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return zeros for images of a shape with a border, and the part without it."""
    n, channels, height, width = shape
    padded = np.zeros((n, channels, height + 2 * padding, width + 2 * padding), dtype)
    return padded, padded[:, :, padding : padding + height, padding : padding + width]


def windows_of(images: np.ndarray, size: int) -> np.ndarray:
    """Return (N, C, H/size, W/size, size * size): windows that do not overlap."""
    n, c, h, w = images.shape
    split = images.reshape(n, c, h // size, size, w // size, size).transpose(0, 1, 2, 4, 3, 5)
    return split.reshape(n, c, h // size, w // size, size * size)


def images_of(windows: np.ndarray, size: int) -> np.ndarray:
    """Undo `windows_of`."""
    n, c, h, w, _ = windows.shape
    split = windows.reshape(n, c, h, w, size, size).transpose(0, 1, 2, 4, 3, 5)
    return split.reshape(n, c, h * size, w * size)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def with_ones(rows: np.ndarray) -> np.ndarray:
    """Append the homogeneous coordinate: (R, K) -> (R, K + 1)."""
    return np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)
