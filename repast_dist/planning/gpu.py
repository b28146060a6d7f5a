"""Models a training step on a GPU: a roofline, what kernels reach of it, and K-FAC as GPUs run it.

Cholesky inversion of whole factors takes the time of its operations, at a share of the peak that
large matrices reach, and a time per column: columns depend on each other, and the latency of a
kernel per panel of them is what small matrices take. Two figures of a library describe all widths
(``study=validate`` puts them beside measurements).
"""

import dataclasses
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, MinLen

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.hardware.components import Quantity
from repast_dist.network import kinds
from repast_dist.network.shapes import Workload
from repast_dist.planning.blocks import SoiBlock, soi_blocks
from repast_dist.planning.layers import LayerTable, layer_table
from repast_dist.planning.specs import SoiSpec
from repast_dist.trace.schema import Phase

SGD_PASSES = 5
"""How often an update by momentum reads or writes a parameter's number: weights and momentum are
read and written, gradients are read.
"""

_VALUE_BYTES = 4
_PASSES = {"forward": (2, 3), "backward": (3, 5)}
"""How often an output is read or written: by an activation that follows a product, and by a layer
that is not part of a product. The forward pass reads it once (a normalisation twice, for its
statistics) and writes it once; the backward pass reads values and gradients once (a normalisation
twice) and writes once.
"""
_LOSS_PASSES, _LOSS_KERNELS = 6, 4
"""How often an output is read or written by PyTorch's cross entropy, and its kernels: log-softmax
reads and writes; the loss picks labels; its derivative is written, mostly zeros; that of the
softmax reads both and writes.
"""
_FACTOR_PASSES = 6
"""How often K-FAC codes read or write the operand of a factor before they multiply it: patches are
copied to be contiguous and divided by the positions and by the batch, each read and written
(``ComputeA`` and ``ComputeG`` of lzhangbv/kfac_pytorch, kfac/utils.py).
"""
_AVERAGE_PASSES = 7
"""The same of the running average of a factor: scaled, added to and scaled again, in place
(``update_running_avg``, there).
"""
_PRECONDITION_PASSES = 2
"""The same of a gradient that is replaced by its preconditioned one (``vec_weight.copy_`` of ASDL,
asdl/symmatrix.py; ``grad.data.copy_`` of lzhangbv/kfac_pytorch).
"""
_CONVOLUTIONS = (kinds.CONV, kinds.GROUPED_CONV, kinds.DEPTHWISE_CONV)


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
class InversionSpec:
    """How long a library takes to invert a positive definite matrix by Cholesky factorisation.

    Attributes
    ----------
    operations : Quantity
        Operations, in units of the cube of the width: 1 for a factorisation and the inverse from
        its factor, 7/3 for a factorisation and a solution for every unit vector.
    efficiency : Quantity
        Share of the peak of `GpuSpec.inverse_flops` that they reach in large matrices.
    column_s : Quantity
        Time per column that is not hidden behind operations.
    """

    operations: Quantity
    efficiency: Quantity
    column_s: Quantity


@spec
class GpuSpec:
    """The figures of a GPU and of the libraries that train on it.

    Attributes
    ----------
    name : str
        Name of the preset.
    product_flops, convolution_flops, inverse_flops : Quantity
        Peak rates of matrix products (layers that are no convolutions, and all that K-FAC adds) and
        of convolutions, in the arithmetic that training uses, and of inversion, which is done in
        32-bit floating point.
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
    product_efficiency, convolution_efficiency : EfficiencyTable
        Efficiency of products and of convolutions, by their smallest dimension.
    inversion : InversionSpec
        Time of Cholesky inversion.
    """

    kind: Literal["gpu"] = "gpu"
    name: str
    product_flops: Quantity
    convolution_flops: Quantity
    inverse_flops: Quantity
    memory_bytes_per_s: Quantity
    memory_efficiency: Quantity
    board_w: Quantity
    die_m2: Quantity
    launch_s: Quantity
    product_efficiency: EfficiencyTable
    convolution_efficiency: EfficiencyTable
    inversion: InversionSpec


@dataclasses.dataclass(frozen=True)
class GpuKfac:
    """What a GPU's second-order step renews, and how often.

    Attributes
    ----------
    block_size : int or None
        Widest block of a factor that is inverted; None: whole factors.
    interval, factor_interval : int
        Steps between inversions, and between updates of the running averages.
    fisher_passes : int
        Extra backward passes when factors are due.
    """

    block_size: int | None = None
    interval: int = 1
    factor_interval: int = 1
    fisher_passes: int = 1


@spec
class GpuScheduleSpec:
    """How K-FAC runs on the GPU that RePAST is compared with.

    Attributes
    ----------
    block_size : int or None
        Widest block of a factor that is inverted; None: whole factors, as GPU codes do.
    interval, factor_interval : int or None
        Steps between inversions, and between updates of the running averages; None: as many as
        between those of the chips (``soi.interval``, ``soi.factor_interval``).
    """

    block_size: PositiveInt | None = None
    interval: PositiveInt | None = None
    factor_interval: PositiveInt | None = None

    def beside(self, soi: SoiSpec) -> GpuKfac:
        """Return what the GPU does beside chips with these SOI blocks."""
        return GpuKfac(
            self.block_size,
            self.interval or soi.interval,
            self.factor_interval or soi.factor_interval,
        )


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
    kfac: GpuKfac | None,
    update_passes: float = SGD_PASSES,
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
    kfac : GpuKfac or None
        What second-order training adds; None: first order.
    update_passes : float
        How often the update reads or writes a number of a parameter; 0: gradients are only summed.
    """
    blocks = soi_blocks(workload, kfac.block_size or _WHOLE) if kfac else ()
    layers = layer_table(workload, blocks)
    machine = GpuTimes(gpu)
    convolution = np.array([layer.kind in _CONVOLUTIONS for layer in workload.layers])
    vectors = samples * layers.vectors

    def products(left: Any, inner: Any, right: Any) -> np.ndarray:
        seconds = machine.products(left, inner, right, layers.groups, convolution)
        return np.asarray(seconds * layers.products)

    errors = products(vectors, layers.columns, layers.rows)
    activations = machine.elementwise(layers, samples, "backward")
    passed = float((errors * layers.errors_pass).sum())
    phases = {
        Phase.FORWARD.value: float(products(vectors, layers.rows, layers.columns).sum())
        + machine.elementwise(layers, samples, "forward")
        + machine.losses(layers, samples),
        Phase.BACKWARD.value: passed
        + float(products(layers.columns, vectors, layers.rows).sum())
        + activations,
        Phase.UPDATE.value: machine.moved(float(layers.parameters.sum()) * update_passes),
    }
    if kfac and blocks:
        phases |= _kfac_phases(
            machine, layers, blocks, samples * layers.factor_vectors, kfac, passed + activations
        )
    return BaselineStep(phases, sum(phases.values()) * machine.board_w, samples)


_WHOLE = 1 << 40
"""Wider than any factor."""


class GpuTimes:
    """Times of single operations on a GPU."""

    def __init__(self, gpu: GpuSpec) -> None:
        self._gpu = gpu
        self.board_w = plain_value(gpu.board_w)
        self._launch_s = plain_value(gpu.launch_s)
        self._bandwidth = plain_value(gpu.memory_bytes_per_s) * plain_value(gpu.memory_efficiency)

    def products(
        self,
        left: np.ndarray,
        inner: np.ndarray,
        right: np.ndarray,
        groups: np.ndarray | int = 1,
        convolution: np.ndarray | bool = False,
    ) -> np.ndarray:
        """Return the time of `groups` products (left, inner) x (inner, right) in one kernel."""
        gpu = self._gpu
        flops = 2.0 * left * inner * right * groups
        smallest = np.minimum(np.minimum(left, inner), right)
        rate = np.where(
            convolution,
            plain_value(gpu.convolution_flops) * gpu.convolution_efficiency.at(smallest),
            plain_value(gpu.product_flops) * gpu.product_efficiency.at(smallest),
        )
        moved = _VALUE_BYTES * groups * (left * inner + inner * right + left * right)
        return np.maximum(flops / rate, moved / self._bandwidth) + self._launch_s

    def inverses(self, widths: np.ndarray) -> np.ndarray:
        """Return the time to factorise and invert matrices of these widths, each by itself."""
        inversion, n = self._gpu.inversion, np.asarray(widths, np.float64)
        rate = plain_value(self._gpu.inverse_flops) * plain_value(inversion.efficiency)
        operations = plain_value(inversion.operations) * n**3
        return operations / rate + plain_value(inversion.column_s) * n + self._launch_s

    def moved(self, values: float) -> float:
        """Return the time to read or write so many values; 0: no kernel."""
        return _VALUE_BYTES * values / self._bandwidth + self._launch_s * (values > 0)

    def elementwise(
        self, layers: LayerTable, samples: int, direction: Literal["forward", "backward"]
    ) -> float:
        """Return the time of activations, normalisations and pooling."""
        touched = layers.outputs * (layers.elementwise > 0) * samples
        passes = np.where(layers.products, *_PASSES[direction])
        seconds = _VALUE_BYTES * passes * touched / self._bandwidth
        return float((seconds + self._launch_s * (touched > 0)).sum())

    def losses(self, layers: LayerTable, samples: int) -> float:
        """Return the time of losses and their derivatives by the outputs."""
        touched = layers.loss_outputs * samples
        seconds = _VALUE_BYTES * _LOSS_PASSES * touched / self._bandwidth
        return float((seconds + _LOSS_KERNELS * self._launch_s * (touched > 0)).sum())


def _kfac_phases(
    machine: GpuTimes,
    layers: LayerTable,
    blocks: tuple[SoiBlock, ...],
    vectors: np.ndarray,
    kfac: GpuKfac,
    passed_s: float,
) -> dict[str, float]:
    n = np.array([block.size for block in blocks], np.int64)
    layer = np.array([block.layer for block in blocks])
    is_a = np.array([block.factor == "A" for block in blocks])
    other = np.where(is_a, layers.columns[layer], (layers.rows + layers.bias)[layer])
    rows = vectors[layer]
    values = float((_FACTOR_PASSES * n * rows + _AVERAGE_PASSES * n**2).sum())
    factors = float(machine.products(n, rows, n).sum()) + machine.moved(values)
    gradients = _PRECONDITION_PASSES * float((n * other)[is_a].sum())
    solves = float(machine.products(n, n, other).sum()) + machine.moved(gradients)
    return {
        Phase.SOI.value: (factors + kfac.fisher_passes * passed_s) / kfac.factor_interval,
        Phase.INVERSION.value: float(machine.inverses(n).sum()) / kfac.interval,
        Phase.PRECONDITION.value: solves,
    }


def plain_value(quantity: Quantity) -> float:
    """Return the value of a baseline's figure.

    Raises
    ------
    ValueError
        It is a library component.
    """
    if quantity.value is None:
        raise ValueError("a baseline's figures are plain values, not library components")
    return quantity.value
