"""Time and rounds of one 1024 x 1024 block with 64 right-hand sides, method by method.

CPU time on one thread is over that of ``numpy.linalg.inv`` of the same block, timed in the same
run: of programming the block into arrays, once for many solves, and of a solve. The block is the
factor of a random network's rectified activations, damped to a condition number of 7e4.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from repast_dist.analog import (
    LOSSLESS,
    SCHEMES,
    DeviceSpec,
    InvSpec,
    Reram,
    Scheme,
    prepare,
)
from repast_dist.analog.solver import BlockSolver

GOAL = {"fcg": 1.5}
"""Times an inversion that a solve is to take at most, with noise or without."""

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


def cpu_s(function: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--condition", type=float, default=7e4)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3, help="times every case is timed")
    parser.add_argument("--methods", nargs="+", choices=[case for case, _ in CASES])
    options = parser.parse_args()
    n = options.size
    matrix = rectified_factor(n, options.condition)
    right = np.random.default_rng(1).standard_normal((n, options.columns))
    print(f"{n} x {n}, {options.columns} right-hand sides, over numpy.linalg.inv")
    print(f"{'method':<16}{'noise':>7}{'program':>9}{'solve':>8}{'goal':>6}{'met':>5}{'rounds':>8}"
          f"{'residual':>11}"
          f"  converged{'settlings':>11}{'products':>10}")  # fmt: skip
    for label, settings in CASES:
        if options.methods and label not in options.methods:
            continue
        for sigma in (0.0, 0.01):
            inv = InvSpec(device=DeviceSpec(inv_cell=Reram(bits=8, programming_sigma=sigma)),
                          size=n)  # fmt: skip
            spec = SCHEMES.load(settings)
            with threadpool_limits(1):
                times = [_times(matrix, right, inv, spec) for _ in range(options.pairs + 1)][1:]
                solver = prepare(matrix, LOSSLESS, inv, spec, 0, "benchmark")
                solution = solver.solve(right)
            program, solve = np.median(times, axis=0)
            counts = solution.counts + solver.program_counts
            goal, met = "", ""
            if label in GOAL:
                goal, met = f"{GOAL[label]:g}x", "yes" if solve <= GOAL[label] else "NO"
            print(f"{label:<16}{sigma:>7.0%}{program:>8.1f}x{solve:>7.1f}x{goal:>6}{met:>5}"
                  f"{solution.iterations.mean():>8.1f}{solution.residual.max():>11.1e}"
                  f"  {'yes' if solution.converged.all() else 'NO':<9}"
                  f"{counts.inv_ops:>11,}{counts.vmm_ops:>10,}")  # fmt: skip


def _times(
    matrix: np.ndarray, right: np.ndarray, inv: InvSpec, spec: Scheme
) -> tuple[float, float]:
    """Return the times of programming and of a solve over that of the reference."""
    solvers: list[BlockSolver] = []
    reference = cpu_s(lambda: np.linalg.inv(matrix))
    program = cpu_s(lambda: solvers.append(prepare(matrix, LOSSLESS, inv, spec, 0, "benchmark")))
    return program / reference, cpu_s(lambda: solvers[0].solve(right)) / reference


if __name__ == "__main__":
    main()
