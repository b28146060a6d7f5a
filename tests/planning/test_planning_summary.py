"""Average steps: equal to the full op table, and cheap for thousands of chips."""

import dataclasses
import os
import time

import numpy as np
import pytest

from repast_dist.network.tables import NETWORKS, network_table
from repast_dist.ops import price
from repast_dist.planning import place, step_ops
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings


def machine(*overrides):
    return load_settings(["chip=small", *overrides]).machine


@pytest.mark.parametrize("chips", [1, 3, 8])
@pytest.mark.parametrize("layers", ["replicate", "pipeline"])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_summary_equals_the_full_table_of_every_step(chips, layers, share):
    setup = machine(
        "soi.interval=2", f"partition.layers={layers}", "soi.block_size=128",
        f"soi.factor_micro_batches={share}",
    )  # fmt: skip
    plan = setup.plan(network_table("lenet5"), chips, 56, 8)
    seconds = energy = writes = 0.0
    for inverses_due in (True, False):
        table = step_ops(plan, None, 0, factors_due=True, inverses_due=inverses_due)
        costs = price(table, plan.hardware.costs)
        seconds += place(plan, table, costs.duration_s).step_s / 2
        energy += costs.energy_j.sum() / 2
        writes += table["cell_writes"].sum() / 2
    summary = summarise(plan)
    assert summary.step_s == pytest.approx(seconds)
    assert summary.energy_j - summary.static_energy_j == pytest.approx(energy)
    assert summary.static_energy_j == pytest.approx(plan.hardware.costs.static_w * chips * seconds)
    assert summary.cell_writes == pytest.approx(writes)
    assert sum(summary.phase_energy_j.values()) == pytest.approx(summary.energy_j)
    assert sum(summary.segment_s.values()) == pytest.approx(summary.step_s)


@pytest.mark.parametrize("layers", ["replicate", "pipeline"])
def test_slow_chips_take_longer_in_the_summary_too(layers):
    """Six chips of three speeds, of which no two replicas are alike in speeds and micro-batches."""
    speeds = (1.0, 1.0, 0.25, 0.5, 1.0, 1.0)
    setup = machine(f"partition.layers={layers}", "soi.interval=1")
    plan = setup.plan(network_table("lenet5"), 6, 56, 8, speeds=speeds)
    table = step_ops(plan, None, 0, factors_due=True, inverses_due=True)
    costs = price(table, plan.hardware.costs)
    placed = place(plan, table, costs.duration_s / np.array(speeds)[table["chip"]])
    summary = summarise(plan)
    assert summary.step_s == pytest.approx(placed.step_s)
    assert summary.energy_j - summary.static_energy_j == pytest.approx(costs.energy_j.sum())
    assert summary.chip_busy_s.max() <= summary.step_s


def test_chips_of_half_the_speed_take_twice_the_time():
    fast, slow = (
        summarise(machine().plan(network_table("lenet5"), 2, 16, 8, speeds=(speed, speed)))
        for speed in (1.0, 0.5)
    )
    assert slow.step_s == pytest.approx(2 * fast.step_s)
    assert slow.soi_work_s == pytest.approx(2 * fast.soi_work_s)


@pytest.mark.parametrize("between", [1, 3])
def test_steps_that_repeat_samples_are_in_the_summary(between):
    """All kinds of steps of one common period, on two chips with unequal micro-batches."""
    plan = machine("soi.interval=2").plan(network_table("lenet5"), 2, 24, 8, damping_every=between)
    seconds, energy, period = 0.0, 0.0, 2 * between
    for step in range(period, 2 * period):
        table = step_ops(plan, None, step, factors_due=True, inverses_due=step % 2 == 0)
        costs = price(table, plan.hardware.costs)
        seconds += place(plan, table, costs.duration_s).step_s / period
        energy += costs.energy_j.sum() / period
    summary = summarise(plan)
    assert summary.step_s == pytest.approx(seconds)
    assert summary.energy_j - summary.static_energy_j == pytest.approx(energy)
    plain = summarise(machine("soi.interval=2").plan(network_table("lenet5"), 2, 24, 8))
    assert summary.phase_energy_j["forward"] > plain.phase_energy_j["forward"]


@pytest.mark.slow
def test_all_networks_on_up_to_1024_chips_are_costed_in_minutes():
    """Of one processor. Three numbers of chips of eleven, unless all is asked for."""
    every = [2**power for power in range(11)]
    counts = every if os.environ.get("REPAST_FUZZ") == "full" else every[::5]
    networks = [name for name in NETWORKS.names() if name not in ("model", "onnx")]
    setup, begun = load_settings(["study=scaling"]).machine, time.process_time()
    for name in networks:
        workload = network_table(name)
        for chips in counts:
            assert summarise(setup.plan(workload, chips, 8 * max(chips, 32), 8)).step_s > 0
    # On a free core it is less than a minute; machines are shared.
    assert time.process_time() - begun < 180 * len(counts) / len(every)


def test_no_chip_is_busier_than_the_step_is_long():
    plan = machine().plan(network_table("lenet5"), 5, 64, 8)
    summary = summarise(plan)
    assert (summary.chip_busy_s <= summary.step_s * (1 + 1e-9)).all()
    assert 0 < summary.utilisation <= 1


def test_chips_that_only_exchange_are_not_in_use():
    # One micro-batch: one of eight chips computes; a first-order update leaves the others nothing
    # but to exchange gradients and write weights.
    plan = machine().plan(network_table("lenet5"), 8, 8, 8, sides=())
    summary = summarise(plan)
    of_all = sum(summary.segment_s[name] for name in ("clip", "update", "write weights"))
    exchanged = sum(summary.segment_s[name] for name in ("reduce gradients", "gather updates"))
    assert exchanged > 0
    assert summary.chip_busy_s[1:].tolist() == pytest.approx([of_all] * 7)
    assert summary.chip_busy_s[0] == pytest.approx(summary.step_s - exchanged)


def test_stale_factors_hide_their_renewal():
    fresh, stale = (
        summarise(machine(f"soi.stale={steps}", "soi.interval=4").plan(
            network_table("lenet5"), 4, 64, 8
        ))
        for steps in (0, 1)
    )  # fmt: skip
    assert stale.step_s < fresh.step_s
    assert stale.segment_s["reduce factors"] == 0.0 < fresh.segment_s["reduce factors"]


def test_overlapped_exchange_is_never_slower_and_never_free():
    apart, overlapped = (
        summarise(machine(f"partition.overlap_exchange={flag}", "partition.pipelining=false").plan(
            network_table("lenet5"), 4, 64, 8
        )).segment_s
        for flag in ("false", "true")
    )  # fmt: skip
    sums = [part["reduce gradients"] + part["reduce factors"] for part in (overlapped, apart)]
    assert 0 < sums[0] < sums[1]


def test_doubling_the_bandwidth_halves_what_the_bandwidth_takes():
    slow = machine("chip=repast")
    faster = tuple(
        dataclasses.replace(d, bandwidth_bytes_per_s=2 * d.bandwidth_bytes_per_s, latency_s=0.0)
        for d in slow.hardware.interconnect.dimensions
    )
    plain = tuple(
        dataclasses.replace(d, latency_s=0.0) for d in slow.hardware.interconnect.dimensions
    )
    times = []
    for dimensions in (plain, faster):
        network = dataclasses.replace(slow.hardware.interconnect, dimensions=dimensions)
        setup = slow.changed(interconnect=network)
        step = summarise(setup.plan(network_table("resnet18"), 8, 64, 8))
        times.append(step.segment_s["reduce gradients"])
    assert times[0] == pytest.approx(2 * times[1])


def test_4096_chips_on_vgg16_are_costed_in_seconds():
    setup = machine("chip=repast", "soi.interval=10")
    started = time.perf_counter()
    summary = summarise(setup.plan(network_table("vgg16"), 4096, 4096 * 8, 8))
    assert time.perf_counter() - started < 10
    assert len(summary.chip_busy_s) == 4096


@pytest.mark.slow
def test_rows_to_price_do_not_grow_with_equal_chips():
    setup = machine("chip=repast", "soi.interval=10")
    few, many = (
        summarise(setup.plan(network_table("resnet18"), chips, chips * 8, 8)).rows
        for chips in (64, 128)
    )
    assert many <= 2 * few


def test_split_blocks_balance_better_than_whole_layers():
    setup = machine("chip=repast")
    split = setup.plan(network_table("vgg16"), 16, 256, 8)
    layerwise = dataclasses.replace(setup.policy.partition, blocks="layer")
    whole = setup.changed(partition=layerwise).plan(network_table("vgg16"), 16, 256, 8)
    loads = [
        np.bincount(np.asarray(plan.block_owner), plan.block_costs.per_step_s, 16)
        for plan in (split, whole)
    ]
    balance = [load.mean() / load.max() for load in loads]
    assert balance[0] > 0.9 > balance[1]


def test_all_of_an_exchange_but_what_the_first_layer_has_is_hidden_in_a_long_backward_pass():
    exchanged = []
    for flag in ("false", "true"):
        overrides = ("soi.block_size=1024", "partition.pipelining=false")
        setup = machine(*overrides, f"partition.overlap_exchange={flag}")
        found = summarise(setup.plan(network_table("lenet5"), 2, 64, 32)).segment_s
        exchanged.append([found["reduce gradients"], found["reduce factors"]])
    layers = network_table("lenet5").layers
    gradient = [layer.parameter_count for layer in layers if layer.parameter_count]
    factor = [
        sum(n * (n + 1) for n in (layer.factor_a_size, layer.factor_g_size))
        for layer in layers
        if layer.preconditioned
    ]
    left = [sizes[0] / sum(sizes) for sizes in (gradient, factor)]
    wanted = sum(time * share for time, share in zip(exchanged[0], left, strict=True))
    assert sum(exchanged[1]) == pytest.approx(wanted)
