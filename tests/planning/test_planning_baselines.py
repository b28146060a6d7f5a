"""A GPU's roofline and PipeLayer's peaks, by hand."""

import numpy as np
import pytest

from repast_dist.ground.spec import load
from repast_dist.hardware import Quantity
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.network.tables import network_table
from repast_dist.planning import SoiSpec
from repast_dist.planning.baselines import PipeLayerSpec, pipelayer_step
from repast_dist.planning.gpu import (
    EfficiencyTable,
    GpuKfac,
    GpuScheduleSpec,
    GpuSpec,
    GpuTimes,
    InversionSpec,
    gpu_step,
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


def inversion(operations=1.0, efficiency=0.5, column_s=0.0):
    return InversionSpec(
        operations=quantity(operations),
        efficiency=quantity(efficiency),
        column_s=quantity(column_s, "s"),
    )


def gpu(**changes):
    table = EfficiencyTable(points=((1.0, 0.5),), source="test", confidence="C")
    plain = {
        "name": "test",
        "product_flops": quantity(1e12, "1/s"),
        "convolution_flops": quantity(1e12, "1/s"),
        "inverse_flops": quantity(1e12, "1/s"),
        "memory_bytes_per_s": quantity(1e12, "B/s"),
        "memory_efficiency": quantity(1.0),
        "board_w": quantity(100.0, "W"),
        "die_m2": quantity(8e-4, "m2"),
        "launch_s": quantity(0.0, "s"),
        "product_efficiency": table,
        "convolution_efficiency": table,
        "inversion": inversion(),
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


def test_inversion_takes_n_cubed_operations_per_factor_every_interval():
    whole = 1024**3 + 3 * 512**3
    step = gpu_step(gpu(), DENSE, 64, GpuKfac(interval=10))
    assert step.phase_s["inversion"] == pytest.approx(whole / 0.5e12 / 10)
    # 1,024 is cut into 4 blocks of 256, each 512 into 2.
    step = gpu_step(gpu(), DENSE, 64, GpuKfac(256, interval=10))
    assert step.phase_s["inversion"] == pytest.approx((4 + 3 * 2) * 256**3 / 0.5e12 / 10)


def test_small_matrices_take_a_time_per_column():
    slow = gpu(inversion=inversion(operations=7 / 3, column_s=2e-6))
    found = GpuTimes(slow).inverses(np.array([10, 2000]))
    assert found == pytest.approx([2e-5 + 7 / 3 * 1e3 / 0.5e12, 4e-3 + 7 / 3 * 8e9 / 0.5e12])


def test_factors_are_products_whose_operands_are_copied_first():
    """Where operations take no time, everything is bound by memory."""
    quick = gpu(product_flops=quantity(1e18, "1/s"))
    step = gpu_step(quick, DENSE, 64, GpuKfac(factor_interval=4, fisher_passes=0))
    values = 0
    for n in (1024, 512, 512, 512):
        product, copies, average = 2 * n * 64 + n * n, 6 * n * 64, 7 * n * n
        values += product + copies + average
    assert step.phase_s["soi"] == pytest.approx(4 * values / 1e12 / 4)
    sampled = gpu_step(quick, DENSE, 64, GpuKfac(factor_interval=4, fisher_passes=2))
    passed = 4 * (64 * 512 + 512 * 512 + 64 * 512) / 1e12
    extra = sampled.phase_s["soi"] - step.phase_s["soi"]
    assert extra == pytest.approx(2 * passed / 4)


def test_the_gpu_renews_as_often_as_the_chips_unless_told_otherwise():
    soi = SoiSpec(block_size=256, interval=10, factor_interval=2)
    assert GpuScheduleSpec().beside(soi) == GpuKfac(None, 10, 2)
    assert GpuScheduleSpec(block_size=512, interval=3).beside(soi) == GpuKfac(512, 3, 2)


def test_summed_gradients_are_not_an_update():
    summed = gpu_step(gpu(launch_s=quantity(1e-3, "s")), DENSE, 64, None, update_passes=0)
    assert summed.phase_s["update"] == 0
    step = gpu_step(gpu(), DENSE, 64, None, update_passes=42)
    assert step.phase_s["update"] == pytest.approx(42 * 4 * (1024 * 512 + 512 * 512) / 1e12)


def test_only_convolutions_have_their_rate():
    fast = gpu(convolution_flops=quantity(1e15, "1/s"))
    assert gpu_step(fast, DENSE, 64, None).step_s == gpu_step(gpu(), DENSE, 64, None).step_s
    image = network_table("lenet5")
    assert gpu_step(fast, image, 256, None).step_s < gpu_step(gpu(), image, 256, None).step_s


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
    for name in ("gpu_v100", "gpu_a100", "gpu_h200", "gpu_gtx1080", "gpu_rtx2080ti"):
        machine = preset(GpuSpec, name)
        for figure in (
            machine.memory_efficiency,
            machine.launch_s,
            machine.product_efficiency,
            machine.convolution_efficiency,
        ):
            assert figure.source.startswith("assumption") == (figure.confidence == "C")
        # One library's time per column stands for all GPUs.
        assert machine.inversion.column_s.confidence == "C"


def test_two_figures_describe_the_measured_inverses_of_a_gv100():
    """Cupy pull request #2495, float32, ``invh``, seconds."""
    measured = {250: 0.632e-3, 500: 1.141e-3, 1000: 3.031e-3, 2000: 6.632e-3, 4000: 25.13e-3}
    ours = GpuTimes(preset(GpuSpec, "gpu_gv100")).inverses(np.array(list(measured)))
    assert ours == pytest.approx(np.array(list(measured.values())), rel=0.12)
