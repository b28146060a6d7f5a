"""A GPU's roofline and PipeLayer's peaks, by hand."""

import numpy as np
import pytest

from repast_dist.ground.spec import load
from repast_dist.hardware import Quantity
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.network.tables import network_table
from repast_dist.planning import SoiSpec
from repast_dist.planning.baselines import (
    EfficiencyTable,
    GpuSpec,
    PipeLayerSpec,
    gpu_step,
    pipelayer_step,
)
from repast_dist.settings import compose_plain

DENSE = Workload(
    name="dense",
    layers=(
        LayerShape(name="fc", kind=kinds.DENSE, in_features=1024, out_features=512, bias=False),
        LayerShape(name="out", kind=kinds.DENSE, in_features=512, out_features=512, bias=False),
    ),
)


def quantity(value, unit="1"):
    return Quantity(value=value, unit=unit, source="test", confidence="C")


def gpu(**changes):
    table = EfficiencyTable(points=((1.0, 0.5),), source="test", confidence="C")
    plain = {
        "name": "test",
        "product_flops": quantity(1e12, "1/s"),
        "inverse_flops": quantity(1e12, "1/s"),
        "memory_bytes_per_s": quantity(1e12, "B/s"),
        "memory_efficiency": quantity(1.0),
        "board_w": quantity(100.0, "W"),
        "die_m2": quantity(8e-4, "m2"),
        "launch_s": quantity(0.0, "s"),
        "product_efficiency": table,
        "inverse_efficiency": table,
    }
    return GpuSpec(**(plain | changes))


def preset(cls, name):
    return load(cls, compose_plain([f"baseline={name}"])["baseline"], "baseline")


def test_compute_bound_products_take_their_operations():
    step = gpu_step(gpu(), DENSE, 4096, None)
    forward = 2 * 4096 * (1024 * 512 + 512 * 512)
    assert step.phase_s["forward"] == pytest.approx(forward / 0.5e12)
    # Gradients of both layers, errors only through the second.
    assert step.phase_s["backward"] == pytest.approx((forward + 2 * 4096 * 512 * 512) / 0.5e12)
    assert step.energy_j == pytest.approx(100.0 * step.step_s)


def test_a_single_sample_is_bound_by_reading_the_weights():
    step = gpu_step(gpu(), DENSE, 1, None)
    moved = 4 * (1024 + 1024 * 512 + 512 + 512 + 512 * 512 + 512)
    assert step.phase_s["forward"] == pytest.approx(moved / 1e12)


def test_inversion_takes_n_cubed_operations_per_block_every_interval():
    step = gpu_step(gpu(), DENSE, 64, SoiSpec(block_size=256, interval=10))
    # 1,024 is cut into 4 blocks of 256, each 512 into 2.
    blocks = 4 + 2 + 2 + 2
    assert step.phase_s["inversion"] == pytest.approx(blocks * 256**3 / 0.5e12 / 10)


def test_efficiency_is_interpolated_over_the_logarithm_of_the_size():
    table = EfficiencyTable(points=((16, 0.1), (256, 0.5)), source="test", confidence="C")
    assert table.at(np.array([64.0]))[0] == pytest.approx(0.3)
    assert table.at(np.array([1.0, 1e6])).tolist() == pytest.approx([0.1, 0.5])


@pytest.mark.parametrize(
    ("name", "batch", "published"), [("gpu_v100", 128, 367), ("gpu_a100", 256, 938)]
)
def test_calibrated_gpus_train_resnet50_at_nvidias_rate(name, batch, published):
    step = gpu_step(preset(GpuSpec, name), network_table("resnet50"), batch, None)
    assert step.samples_per_s == pytest.approx(published, rel=0.01)


def test_pipelayer_runs_three_passes_at_its_published_peak():
    step = pipelayer_step(preset(PipeLayerSpec, "pipelayer"), network_table("vgg16"), 2)
    operations = 3 * 2 * 15_470_264_320 * 2
    assert step.step_s == pytest.approx(operations / (1485e9 * 82.6))
    assert step.energy_j == pytest.approx(operations / 142.9e9)


def test_every_assumption_in_the_baselines_is_marked():
    for name in ("gpu_v100", "gpu_a100", "gpu_h200", "gpu_gtx1080"):
        machine = preset(GpuSpec, name)
        assert machine.inverse_efficiency.confidence == "C"
        assert machine.inverse_efficiency.source.startswith("assumption")
