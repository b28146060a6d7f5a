"""The loops of a convolution's patches, compiled by numba: NumPy goes through all patches once per
pixel of a kernel, these once per picture and channel, which the cache holds.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def cut(images: np.ndarray, kernel: int, stride: int, columns: np.ndarray) -> None:
    """Write the patches of images.

    Parameters
    ----------
    images : ndarray
        (N, C, H, W), padded.
    kernel, stride : int
        In pixels.
    columns : ndarray
        (N, H', W', C * kernel * kernel), written; see `repast_dist.network.functional.im2col`.
    """
    count, high, wide = columns.shape[:3]
    for n in range(count):
        for y in range(high):
            for c in range(images.shape[1]):
                for row in range(kernel):
                    line = images[n, c, y * stride + row]
                    for column in range(kernel):
                        at = (c * kernel + row) * kernel + column
                        for x in range(wide):
                            columns[n, y, x, at] = line[x * stride + column]


@numba.njit(cache=True, nogil=True)
def add_back(columns: np.ndarray, kernel: int, stride: int, images: np.ndarray) -> None:
    """Add patches to padded images, both as in `cut`; a pixel's sum goes through the kernel."""
    count, high, wide = columns.shape[:3]
    for n in range(count):
        for c in range(images.shape[1]):
            for row in range(kernel):
                for column in range(kernel):
                    at = (c * kernel + row) * kernel + column
                    for y in range(high):
                        line = images[n, c, y * stride + row]
                        for x in range(wide):
                            line[x * stride + column] += columns[n, y, x, at]
