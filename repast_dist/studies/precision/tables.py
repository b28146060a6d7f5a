"""Solved points as tables: where methods reach their target, and what they take for it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_ENOUGH = 2.0**-8
"""Relative residual from which eight bits are said to suffice."""


def frontier_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, per array and method, the smallest damping with which it still converges."""
    found = []
    for key, group in _grouped(rows, ("block_size", "cell_bits", "noise", "method")):
        reached = None
        for row in sorted(group, key=lambda row: -row["damping"]):
            if not row["converged"]:
                break
            reached = row
        found.append(
            key
            | {
                "smallest_damping": reached["damping"] if reached else None,
                "rounds": reached["rounds"] if reached else None,
                "condition": reached["condition"] if reached else None,
            }
        )
    return found


def divergence_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, per array and method, the bits reached at every damping, as text."""
    found = []
    for key, group in _grouped(rows, ("block_size", "cell_bits", "noise", "method")):
        cells = {
            f"damping {row['damping']:g}": (
                f"{row['bits']:.0f} in {row['rounds']:.0f}"
                if row["converged"]
                else (f"({row['bits']:.0f})" if row["residual"] < 1 else "no")
            )
            for row in sorted(group, key=lambda row: -row["damping"])
        }
        found.append(key | cells)
    return found


def method_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return shares and medians per method."""
    found = []
    for key, group in _grouped(rows, ("method",)):
        good = [row for row in group if row["converged"]]
        found.append(
            key
            | {
                "converged": len(good) / len(group),
                "eight_bits": sum(row["residual"] <= _ENOUGH for row in group) / len(group),
                "most_bits": max(row["bits"] for row in group),
            }
            | {
                f"median_{name}": float(np.median([row[name] for row in good])) if good else None
                for name in ("rounds", "inv_ops", "vmm_ops", "digital_ops")
            }
        )
    return found


def _grouped(
    rows: Sequence[dict[str, Any]], names: Sequence[str]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    for key, group in groups.items():
        yield dict(zip(names, key, strict=True)), group
