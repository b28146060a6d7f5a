"""Time and rounds of one 1024 x 1024 block with 64 right-hand sides, method by method.

Wall time is over that of ``numpy.linalg.inv`` of the same block, timed in the same run. The block
is the factor of a random network's rectified activations, damped to a condition number of 7e4.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from repast_dist.analog import (
    LOSSLESS,
    SCHEMES,
    DeviceSpec,
    InvSpec,
    Reram,
    Scheme,
    Solution,
    SolveCounts,
    prepare,
)

TARGET = 5.0
CASES = [
    ("cg", {"method": "cg"}),
    ("taylor", {"method": "taylor"}),
    ("refine", {"method": "refine"}),
    ("fcg, plain", {"method": "fcg", "deflation": 0, "conjugate": 1}),
    ("fcg", {"method": "fcg"}),
    ("fcg, 2 slices", {"method": "fcg", "array_slices": 2}),
    ("auto", {"method": "auto"}),
]


def rectified_factor(n: int, condition: float, seed: int = 0) -> np.ndarray:
    """Return the second moments of activations behind three random layers, damped."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((4 * n, n))
    for _ in range(3):
        rows = np.maximum(rows @ random.standard_normal((n, n)) * np.sqrt(2 / n), 0)
    factor = rows.T @ rows / len(rows)
    return factor + np.linalg.eigvalsh(factor)[-1] / condition * np.eye(n)


def over(reference: Callable[[], object], function: Callable[[], object], pairs: int) -> float:
    """Return wall time over that of the reference: the median of pairs timed in turn."""

    def wall(once: Callable[[], object]) -> float:
        start = time.perf_counter()
        once()
        return time.perf_counter() - start

    function()
    return float(np.median([wall(function) / wall(reference) for _ in range(pairs)]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--condition", type=float, default=7e4)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3, help="times every case is timed")
    options = parser.parse_args()
    n = options.size
    matrix = rectified_factor(n, options.condition)
    right = np.random.default_rng(1).standard_normal((n, options.columns))
    print(f"{n} x {n}, {options.columns} right-hand sides; target {TARGET:g}x numpy.linalg.inv")
    print(f"{'method':<16}{'noise':>7}{'wall':>8}{'rounds':>8}{'residual':>11}  converged"
          f"{'settlings':>11}{'products':>10}")  # fmt: skip
    for label, settings in CASES:
        for sigma in (0.0, 0.01):
            inv = InvSpec(device=DeviceSpec(inv_cell=Reram(bits=8, programming_sigma=sigma)),
                          size=n)  # fmt: skip
            spec = SCHEMES.load(settings)
            done: list[tuple[Solution, SolveCounts]] = []

            def once(inv: InvSpec = inv, spec: Scheme = spec, done: list = done) -> None:
                solver = prepare(matrix, LOSSLESS, inv, spec, 0, "benchmark")
                done.append((solver.solve(right), solver.program_counts))

            wall = over(lambda: np.linalg.inv(matrix), once, options.pairs)
            solution, before = done[-1]
            counts = solution.counts + before
            print(f"{label:<16}{sigma:>7.0%}{wall:>7.1f}x"
                  f"{solution.iterations.mean():>8.1f}{solution.residual.max():>11.1e}"
                  f"  {'yes' if solution.converged.all() else 'NO':<9}"
                  f"{counts.inv_ops:>11,}{counts.vmm_ops:>10,}")  # fmt: skip


if __name__ == "__main__":
    main()
