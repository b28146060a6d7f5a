"""Models the same training step on a GPU, from its roofline, and on PipeLayer, from its peaks."""

import dataclasses
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, MinLen
from pydantic import Discriminator

from repast_dist.ground.spec import spec
from repast_dist.hardware.components import Quantity
from repast_dist.network.shapes import Workload
from repast_dist.planning.blocks import SoiBlock, soi_blocks
from repast_dist.planning.layers import LayerTable, layer_table
from repast_dist.planning.specs import SoiSpec
from repast_dist.trace.schema import Phase

_VALUE_BYTES = 4
_PASSES = {"forward": (2, 3), "backward": (3, 5)}
"""How often an output is read or written: by an activation that follows a product, and by a layer
that is not part of a product. The forward pass reads it once (a normalisation twice, for its
statistics) and writes it once; the backward pass reads values and gradients once (a normalisation
twice) and writes once.
"""
_UPDATE_PASSES = 5
"""Weights and momentum are read and written, gradients are read."""


@spec
class EfficiencyTable:
    """Share of the peak that an operation reaches, by size.

    Attributes
    ----------
    points : tuple of (size, share)
        Ascending sizes; between them the share is interpolated over the logarithm of the size.
    source, confidence
        As of `Quantity`.
    """

    points: Annotated[tuple[tuple[float, float], ...], MinLen(1)]
    source: str
    confidence: Literal["A", "B", "C"]

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.points]
        if sizes != sorted(set(sizes)) or min(sizes) <= 0:
            raise ValueError("points: sizes must be positive and ascending")
        if not all(0 < share <= 1 for _, share in self.points):
            raise ValueError("points: shares must lie in (0, 1]")

    def at(self, size: np.ndarray) -> np.ndarray:
        """Return the share that operations of these sizes reach."""
        sizes, shares = np.array(self.points).T
        wanted = np.log(np.maximum(size, sizes[0]))
        found: np.ndarray = np.interp(wanted, np.log(sizes), shares)
        return found


@spec
class GpuSpec:
    """The figures of a GPU.

    Attributes
    ----------
    name : str
        Name of the preset.
    product_flops, inverse_flops : Quantity
        Peak rates of matrix products, in the arithmetic that training uses, and of inversion, which
        is done in 32-bit floating point.
    memory_bytes_per_s : Quantity
        Peak memory bandwidth.
    memory_efficiency : Quantity
        Share of the peak bandwidth that element-wise operations reach.
    board_w : Quantity
        Power of the board under load.
    die_m2 : Quantity
        Area of its die, without memories.
    launch_s : Quantity
        Time of an empty kernel.
    product_efficiency : EfficiencyTable
        Efficiency of products, by their smallest dimension.
    inverse_efficiency : EfficiencyTable
        Efficiency of Cholesky factorisation and inversion, by width.
    """

    kind: Literal["gpu"] = "gpu"
    name: str
    product_flops: Quantity
    inverse_flops: Quantity
    memory_bytes_per_s: Quantity
    memory_efficiency: Quantity
    board_w: Quantity
    die_m2: Quantity
    launch_s: Quantity
    product_efficiency: EfficiencyTable
    inverse_efficiency: EfficiencyTable


@spec
class PipeLayerSpec:
    """The published peak figures of PipeLayer, which trains with first-order methods only.

    Attributes
    ----------
    name : str
        Name in tables.
    operations_per_s_per_m2, operations_per_joule : Quantity
        Published peaks; a multiply-accumulate is two operations.
    area_m2 : Quantity
        Area of the chip.
    utilisation : Quantity
        Share of the peak rate that it reaches.
    """

    kind: Literal["pipelayer"] = "pipelayer"
    name: str
    operations_per_s_per_m2: Quantity
    operations_per_joule: Quantity
    area_m2: Quantity
    utilisation: Quantity


BaselineSpec = Annotated[GpuSpec | PipeLayerSpec, Discriminator("kind")]


@spec
class EpochsSpec:
    """Epochs until a network reaches its target, from cited results.

    Attributes
    ----------
    first_order, second_order : float
        Epochs.
    source : str
        Where the numbers come from.
    confidence : {"A", "B", "C"}
        As of `Quantity`.
    """

    first_order: Annotated[float, Gt(0)]
    second_order: Annotated[float, Gt(0)]
    source: str
    confidence: Literal["A", "B", "C"]


@dataclasses.dataclass(frozen=True)
class BaselineStep:
    """A training step on another machine.

    Attributes
    ----------
    phase_s : dict
        Phase -> time.
    energy_j : float
        Energy of the step.
    samples : int
        Samples per step.
    """

    phase_s: dict[str, float]
    energy_j: float
    samples: int

    @property
    def step_s(self) -> float:
        """Time of the step."""
        return sum(self.phase_s.values())

    @property
    def samples_per_s(self) -> float:
        """Throughput."""
        return self.samples / self.step_s


def gpu_step(
    gpu: GpuSpec,
    workload: Workload,
    samples: Annotated[int, Ge(1)],
    soi: SoiSpec | None,
    fisher_passes: int = 1,
) -> BaselineStep:
    """Return an average training step on a GPU.

    Every product takes as long as its arithmetic or its memory traffic, whichever is longer;
    element-wise layers are bound by memory; each kernel takes one launch.

    Parameters
    ----------
    gpu : GpuSpec
        The GPU.
    workload : Workload
        What is trained.
    samples : int
        Samples per step.
    soi : SoiSpec or None
        Blocks and intervals of second-order training; None: first order.
    fisher_passes : int
        Extra backward passes when factors are due.
    """
    blocks = soi_blocks(workload, soi.block_size) if soi else ()
    layers = layer_table(workload, blocks)
    machine = _Machine(gpu)
    vectors = samples * layers.vectors
    forward = machine.products(vectors, layers.rows, layers.columns, layers.groups)
    backward = machine.products(vectors, layers.columns, layers.rows, layers.groups)
    gradient = machine.products(layers.columns, vectors, layers.rows, layers.groups)
    passed = float((backward * layers.errors_pass).sum())
    phases = {
        Phase.FORWARD.value: float((forward * layers.products).sum())
        + machine.elementwise(layers, samples, "forward"),
        Phase.BACKWARD.value: passed
        + float((gradient * layers.products).sum())
        + machine.elementwise(layers, samples, "backward"),
        Phase.UPDATE.value: machine.moved(float(layers.parameters.sum()) * _UPDATE_PASSES),
    }
    if soi and blocks:
        phases |= _soi_phases(
            machine, layers, blocks, samples * layers.factor_vectors, soi, passed * fisher_passes
        )
    energy = sum(phases.values()) * machine.board_w
    return BaselineStep(phases, energy, samples)


def pipelayer_step(machine: PipeLayerSpec, workload: Workload, samples: int) -> BaselineStep:
    """Return a first-order training step on PipeLayer. Its forward pass, errors and gradients take
    equally many operations, at the published rate and energy per operation.
    """
    operations = 2.0 * workload.macs_per_sample * samples
    rate = _value(machine.operations_per_s_per_m2) * _value(machine.area_m2)
    rate *= _value(machine.utilisation)
    phases = {
        Phase.FORWARD.value: operations / rate,
        Phase.BACKWARD.value: 2 * operations / rate,
    }
    return BaselineStep(phases, 3 * operations / _value(machine.operations_per_joule), samples)


class _Machine:
    """Times of single operations on a GPU."""

    def __init__(self, gpu: GpuSpec) -> None:
        self._gpu = gpu
        self.board_w = _value(gpu.board_w)
        self._launch_s = _value(gpu.launch_s)
        self._bandwidth = _value(gpu.memory_bytes_per_s) * _value(gpu.memory_efficiency)

    def products(
        self, left: np.ndarray, inner: np.ndarray, right: np.ndarray, groups: np.ndarray | int = 1
    ) -> np.ndarray:
        """Return the time of `groups` products (left, inner) x (inner, right) in one kernel."""
        flops = 2.0 * left * inner * right * groups
        smallest = np.minimum(np.minimum(left, inner), right)
        rate = _value(self._gpu.product_flops) * self._gpu.product_efficiency.at(smallest)
        moved = _VALUE_BYTES * groups * (left * inner + inner * right + left * right)
        return np.maximum(flops / rate, moved / self._bandwidth) + self._launch_s

    def inverses(self, widths: np.ndarray) -> np.ndarray:
        """Return the time to factorise and invert matrices, with n^3 operations each."""
        rate = _value(self._gpu.inverse_flops) * self._gpu.inverse_efficiency.at(widths)
        return np.asarray(widths.astype(float) ** 3 / rate + self._launch_s)

    def moved(self, values: float) -> float:
        """Return the time to read or write so many values."""
        return _VALUE_BYTES * values / self._bandwidth + self._launch_s

    def elementwise(
        self, layers: LayerTable, samples: int, direction: Literal["forward", "backward"]
    ) -> float:
        """Return the time of activations, normalisations and pooling."""
        touched = layers.outputs * (layers.elementwise > 0) * samples
        passes = np.where(layers.products, *_PASSES[direction])
        seconds = _VALUE_BYTES * passes * touched / self._bandwidth
        return float((seconds + self._launch_s * (touched > 0)).sum())


def _soi_phases(
    machine: _Machine,
    layers: LayerTable,
    blocks: tuple[SoiBlock, ...],
    vectors: np.ndarray,
    soi: SoiSpec,
    fisher_s: float,
) -> dict[str, float]:
    n = np.array([block.size for block in blocks], np.int64)
    layer = np.array([block.layer for block in blocks])
    is_a = np.array([block.factor == "A" for block in blocks])
    other = np.where(is_a, layers.columns[layer], (layers.rows + layers.bias)[layer])
    factors = float(machine.products(n, vectors[layer], n).sum()) + fisher_s
    return {
        Phase.SOI.value: factors / soi.factor_interval,
        Phase.INVERSION.value: float(machine.inverses(n).sum()) / soi.interval,
        Phase.PRECONDITION.value: float(machine.products(n, n, other).sum()),
    }


def _value(quantity: Quantity) -> float:
    if quantity.value is None:
        raise ValueError("a baseline's figures are plain values, not library components")
    return quantity.value
