"""The op table of a step, against calculations by hand and against the analog core's own counts."""

import dataclasses
import itertools

import numpy as np
import pytest

from repast_dist.analog import SCHEMES, DeviceSpec, OpAmpSpec, SolveCounts, program_vmm
from repast_dist.ground.errors import CapacityError, SettingsError
from repast_dist.ground.spec import load
from repast_dist.hardware import (
    ChipSpec,
    ComponentTable,
    Hardware,
    InterconnectSpec,
    unit_costs,
)
from repast_dist.hardware.geometry import product_counts
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.network.shapes import attention_shapes
from repast_dist.ops import OPS, price
from repast_dist.ops.table import SERIAL
from repast_dist.planning import (
    PartitionSpec,
    Policy,
    SoiSpec,
    StepWork,
    make_plan,
    place,
    step_ops,
)
from repast_dist.planning.machine import Machine
from repast_dist.settings import compose_plain, load_settings
from repast_dist.studies.costing import planned_step
from repast_dist.trace.schema import COUNTS

CODES = {op.name: op.number for op in OPS}
CONF = compose_plain(["chip=small", "interconnect=board", "components=reram_32nm"])
SMALL = load(ChipSpec, CONF["chip"])
COMPONENTS = load(ComponentTable, CONF["components"])
BOARD = load(InterconnectSpec, CONF["interconnect"])
PARTS = ("device", "components", "interconnect", "soi", "partition", "inversion")
# Outputs are read after 12 cycles of 100 MHz: 120 ns.
DEVICE = DeviceSpec(opamp=OpAmpSpec(gbw_hz=1e8))
COSTS = unit_costs(SMALL, COMPONENTS, DEVICE.opamp)
DENSE = Workload(
    name="dense", layers=(LayerShape(name="fc", kind=kinds.DENSE, in_features=64, out_features=10),)
)
TWO = Workload(
    name="two",
    layers=(
        LayerShape(name="fc1", kind=kinds.DENSE, in_features=64, out_features=40),
        LayerShape(name="fc2", kind=kinds.DENSE, in_features=40, out_features=10),
    ),
)


def plan_of(workload=DENSE, chips=1, micro_batches=1, size=16, chip=SMALL, **changes):
    parts = {name: changes.pop(name) for name in PARTS if name in changes}
    machine = Machine(
        Hardware(chip=chip, device=DEVICE, components=COMPONENTS, interconnect=BOARD),
        Policy(soi=SoiSpec(), partition=PartitionSpec(), inversion=SCHEMES.load({})),
    ).changed(**parts)
    work = StepWork(chips=chips, micro_batches=micro_batches, micro_batch_size=size, **changes)
    return make_plan(workload, machine.hardware, machine.policy, work)


def ops_of(plan, factors_due=True, inverses_due=True, solves=None, chips=None):
    return step_ops(
        plan, chips, 0, factors_due=factors_due, inverses_due=inverses_due, solves=solves
    )


def row_of(table, op):
    return table.where(np.flatnonzero(table["op"] == CODES[op]))


def test_one_dense_layer_on_a_small_chip_costs_what_a_hand_calculation_says():
    """64 inputs, 10 outputs, bias, 16 samples; 4-bit cells, 8-bit weights and inputs: 2 slices,
    7 passes, one array of 128 x 64 pairs. 65-wide factor A and 10-wide factor G, 8 rounds.
    """
    plan = plan_of()
    table = ops_of(plan)
    costs = price(table, COSTS)
    took = {name: costs.duration_s[table["op"] == code] for name, code in CODES.items()}
    used = {name: costs.energy_j[table["op"] == code] for name, code in CODES.items()}
    pass_s, row_s, clock_s, settling_s, inv_s = 100e-9, 50.88e-9, 1 / 1.2e9, 120e-9, 16 / 1.2e9
    cell, dac, write = 1.953125e-15, 0.41667e-12, 3.91e-9 / 128
    adc = 1.666666667e-12 + 1.041667e-15 + 0.021e-12
    byte = 20.45e-12 / 32 + 8 * 0.054e-12 + 1.088889e-12 + 0.5 * 20.74e-12 / 32
    digital = COSTS.parts["digital"].energy_j

    def step(inputs, vectors, tiles=1):
        """Find and apply the step of the inputs: compare and shift, on 16 lanes of a tile."""
        return -(-2 * inputs * vectors // (16 * tiles)) * clock_s

    def of_step(inputs, vectors, codes):
        """Energy of the same, and of counting the codes of up to 32 vectors."""
        return (2 * inputs * vectors + min(vectors, 32) * 7 * codes) * digital

    def expect(op, seconds, joules=None):
        assert took[op].tolist() == pytest.approx([seconds], rel=1e-5), op
        if joules is not None:
            assert used[op].tolist() == pytest.approx([joules], rel=1e-5), op

    expect(
        "vmm_forward",
        16 * 7 * pass_s + step(64, 16),
        16 * 7 * (64 * 20 * 2 * cell + 64 * dac + 20 * adc) + 16 * 74 * byte + of_step(64, 16, 20),
    )
    # Inputs with the bias's ones: 65 columns of 2 slices take 3 arrays of 16 written rows each, in
    # three tiles.
    expect("write_activations", 16 * row_s, 16 * 65 * 4 * write + 16 * 65 * byte)
    # The 10 rows of the transposed errors drive those arrays.
    expect(
        "vmm_gradient",
        10 * 7 * pass_s + step(16, 10, 3),
        10 * 7 * (16 * 130 * 2 * cell + 16 * 3 * dac + 130 * adc)
        + 10 * (16 + 65) * byte
        + of_step(16, 10, 130),
    )
    # A: 65 columns of the inputs drive the same arrays.
    expect(
        "factor_a",
        65 * 7 * pass_s + step(16, 65, 3),
        65 * 7 * (16 * 130 * 2 * cell + 16 * 3 * dac + 130 * adc)
        + 65 * 81 * byte
        + of_step(16, 65, 130),
    )
    expect("write_errors", 16 * row_s, 16 * 10 * 4 * write + 160 * byte)
    expect(
        "factor_g",
        10 * 7 * pass_s + step(16, 10, 3),
        10 * 7 * (16 * 20 * 2 * cell + 16 * dac + 20 * adc) + 10 * 26 * byte + of_step(16, 10, 20),
    )
    # 32-bit products: 8 slices, 31 passes, 32 rows at a time: 3 groups for A, 1 for G.
    # 10 right-hand sides for A, 65 for G, 8 rounds each,
    # shared by as many copies as the chip has room for.
    # Per element 11 digital operations a round, 2 for each of the 0, 0, 1, 2, 3, 3, 3, 3 further
    # conjugate directions of its 8 rounds, 2 for scaling, and for A 4 for each of 4 directions
    # taken out, one for 16 rows, and 2 to split and join. Preparing scales n^2 entries, and looks
    # for directions of A in three products with 8 vectors each.
    copies = plan.places.copies
    a, g = 10 * 8, 65 * 8
    per_a, per_g = 8 * 11 + 2 * 15 + 2 + 8 * (4 * 4 + 2), 8 * 11 + 2 * 15 + 2
    prepared_a = 2 * 65**2 + 65 * 8 * (3 * 9 + 2 * 4) + 4 * 65**2
    solved_s = -(-(a + 24) // copies[0]) * 31 * 3 * pass_s - (-a // copies[0]) * inv_s
    solved_s += a / copies[0] * settling_s
    expect("solve_a", solved_s + _digital(10 * 65 * per_a + prepared_a, plan, 0))
    solved_s = -(-g // copies[1]) * (31 * pass_s + inv_s) + g / copies[1] * settling_s
    expect("solve_g", solved_s + _digital(65 * 10 * per_g + 2 * 10**2, plan, 1))
    expect("clip", -(-650 * 3 // 64) * clock_s)
    expect("update", -(-650 * 3 // 64) * clock_s)
    expect("write_weights", 64 * row_s, 64 * 10 * 4 * write + 640 * byte)
    assert not len(row_of(table, "vmm_backward")), "no errors pass below the first layer"


def _digital(operations, plan, block):
    """Time of digital operations spread over the tiles of a block's copies."""
    banks = {0: 5, 1: 1}[block]  # 65 x 65 at 8 slices: 9 arrays; 10 x 10: 2 arrays; 2 per bank
    tiles = -(-int(plan.places.copies[block]) * banks // 4)
    return -(-operations // (16 * tiles)) / 1.2e9


def test_conversions_equal_those_of_the_analog_core():
    from repast_dist.analog import VmmSpec

    spec = VmmSpec(rows=128, weight_bits=8, input_bits=8)
    counts = product_counts(plan_of().hardware.geometry, 32, 300, 50)
    row_tiles = 3
    assert counts["adc_conversions"] == 32 * spec.passes * spec.slices * row_tiles * 50
    assert counts["crossbar_reads"] == 32 * spec.passes * row_tiles * 2


def test_digital_operations_of_a_product_are_those_that_the_numbers_need(monkeypatch):
    """Every input is compared and shifted once, and the codes of 32 rows of a call are counted."""
    from repast_dist.analog.arrays import vmm

    chip = load_settings(["chip=small", "chip.vmm.rows=32", "chip.residual.rows=16"]).hardware
    random = np.random.default_rng(0)
    array = program_vmm(random.normal(size=(70, 9)), chip.vmm_spec)
    made = {"steps": 0, "codes": 0}
    round_to_integers, needed_ranges = vmm.round_to_integers, vmm.needed_ranges

    def rounding(values, *others):
        made["steps"] += values.size
        return round_to_integers(values, *others)

    def needing(counts, *others):
        made["codes"] += int(counts.sum())
        return needed_ranges(counts, *others)

    monkeypatch.setattr(vmm, "round_to_integers", rounding)
    monkeypatch.setattr(vmm, "needed_ranges", needing)
    for vectors in (5, 32, 50):
        made |= {"steps": 0, "codes": 0}
        ranges = np.full(chip.vmm_spec.slices, 50.0, np.float32)
        array.multiply(random.normal(size=(vectors, 70)), ranges=ranges)
        counts = product_counts(chip.geometry, vectors, 70, 9)
        partial_sums = vectors * 9 * 2
        assert counts["digital_ops"] == 2 * made["steps"] + partial_sums
        assert counts["counter_ops"] == made["codes"]


LARGE = dataclasses.replace(SMALL, tiles=100)
"""A chip on which blocks have a copy for every right-hand side, so that all stay."""


def test_measured_solves_replace_the_modelled_ones():
    plan = plan_of(chip=LARGE, soi=SoiSpec(interval=5))
    assert plan.places.stays.all()
    measured = {0: SolveCounts(inv_ops=7, vmm_ops=9, digital_ops=11, program_cells=0)}
    table = ops_of(plan, inverses_due=False, solves=measured)
    assert row_of(table, "solve_a")["inv_ops"].tolist() == [7]
    assert row_of(table, "solve_a")["crossbar_reads"].tolist() == [9 * 31 * 9 * 3]
    assert row_of(table, "solve_g")["inv_ops"].tolist() == [0]
    assert not len(row_of(table, "program_block"))


def test_factor_rows_come_only_when_factors_are_due():
    plan = plan_of(TWO, chip=LARGE, soi=SoiSpec(interval=5))
    assert plan.places.stays.all()
    table = ops_of(plan, factors_due=False, inverses_due=False)
    for op in ("factor_a", "factor_g", "write_errors", "average_factor", "program_block"):
        assert not len(row_of(table, op)), op
    assert len(row_of(table, "solve_a")) == 2


def test_a_fisher_pass_repeats_digital_work_and_the_operands_gradients_of_attention():
    """Two passes of 4 samples. Softmax and rectifier: 3 x 2 x 6 x 6 = 216 and 40 operations a
    sample, with 40 for the bias. Scores (5 -> 6, two heads, 6 tokens): each of 6 outputs drives
    arrays that hold the 6 rows of a sample, so 4 samples x 2 heads x 6 x 5 conversions per pass and
    slice. Small chip: 7 passes, 2 slices.
    """
    layers = (
        LayerShape(
            name="fc", kind=kinds.DENSE, in_features=64, out_features=40, elementwise_ops=40
        ),
        *attention_shapes("a", 10, 2, 6)[:1],
    )
    work = {"size": 4, "fisher_passes": 2}
    table = ops_of(plan_of(Workload(name="w", layers=layers), **work))
    digital = row_of(table, "elementwise_fisher")
    assert digital["layer"].tolist() == [0, 1]
    assert digital["digital_ops"].tolist() == [2 * 4 * (40 + 40), 2 * 4 * 216]
    operands = row_of(table, "operand_fisher")
    assert operands["layer"].tolist() == [1]
    assert operands["adc_conversions"].tolist() == [2 * 4 * 2 * 6 * 5 * 7 * 2]
    empirical = ops_of(plan_of(Workload(name="w", layers=layers), size=4, fisher_passes=0))
    for op in ("vmm_fisher", "elementwise_fisher", "operand_fisher"):
        assert not len(row_of(empirical, op))


def test_an_update_is_paid_by_the_operations_of_the_optimizer_and_a_clip_where_there_is_one():
    adam = ops_of(plan_of(chips=2, micro_batches=2, sides=(), update_operations=12))
    assert row_of(adam, "update")["digital_ops"].tolist() == [12 * (64 + 1) * 10] * 2
    foof = ops_of(plan_of(chips=2, micro_batches=2, sides=("A",), clips=False))
    assert row_of(foof, "update")["digital_ops"].tolist() == [3 * (64 + 1) * 10] * 2
    assert not len(row_of(foof, "clip"))
    assert len(row_of(ops_of(plan_of(chips=2, micro_batches=2, sides=("A",))), "clip")) == 2


def test_a_first_order_step_has_no_soi_rows():
    plan = plan_of(TWO, chips=2, micro_batches=2, sides=())
    table = ops_of(plan)
    names = {op for op, code in CODES.items() if (table["op"] == code).any()}
    assert not names & {"factor_a", "solve_a", "solve_g", "clip", "exchange_gradients"}
    assert {"reduce_gradients", "gather_updates", "vmm_gradient"} <= names


def test_work_does_not_depend_on_the_number_of_chips():
    # For the least energy weights stay on few chips and on many.
    frugal = PartitionSpec(objective="energy")
    alone, four = (ops_of(plan_of(TWO, chips=n, micro_batches=8, partition=frugal)) for n in (1, 4))
    for name in COUNTS:
        if name in ("cell_writes", "write_pulses", "link_bytes", "buffer_bytes", "digital_ops"):
            continue
        assert alone[name].sum() == four[name].sum(), name
    # Every chip updates and writes its own copy of the weights.
    once, copies = (row_of(t, "write_weights")["cell_writes"].sum() for t in (alone, four))
    assert copies == 4 * once > 0


def test_rows_of_single_chips_add_up_to_the_rows_of_all():
    plan = plan_of(TWO, chips=3, micro_batches=8)
    together = ops_of(plan)
    apart = [ops_of(plan, chips=chip) for chip in range(3)]
    assert len(together) == sum(map(len, apart))
    for name in (*COUNTS, *SERIAL):
        total = sum(part[name].sum() for part in apart)
        assert together[name].sum() == pytest.approx(total, rel=1e-12), name


def test_one_chip_exchanges_nothing():
    table = ops_of(plan_of(TWO, micro_batches=4))
    assert table["link_bytes"].sum() == 0
    assert not len(row_of(table, "reduce_gradients"))


def test_samples_flow_through_two_layers_one_behind_the_other():
    """Two pipelined layers by hand: sample i leaves the last stage at the sum of the stage times
    plus i times the slowest.
    """
    plan = plan_of(TWO, micro_batches=3, sides=())
    table = ops_of(plan)
    duration = price(table, COSTS).duration_s
    placed = place(plan, table, duration)

    def once(op, layer):
        return duration[(table["op"] == CODES[op]) & (table["layer"] == layer)][0] / 16

    forward = [
        max(once("vmm_forward", n), once("write_activations", n), once("elementwise_forward", n))
        for n in (0, 1)
    ]
    backward = [
        max(once("vmm_backward", 1), once("vmm_gradient", 1), once("elementwise_backward", 1)),
        max(once("vmm_gradient", 0), once("elementwise_backward", 0)),
    ]
    stages = [*forward, *backward]
    expected = sum(stages) + (48 - 1) * max(stages)
    assert placed.segment_seconds[0] == pytest.approx(expected)
    second = (table["op"] == CODES["vmm_forward"]) & (table["layer"] == 1)
    begins = placed.start_s[second & (table["micro_batch"] == 2)]
    assert begins.tolist() == pytest.approx([forward[0] + 32 * max(forward)])


def test_without_pipelining_layers_take_turns():
    partition = PartitionSpec(pipelining=False)
    plan = plan_of(TWO, micro_batches=3, sides=(), partition=partition)
    table = ops_of(plan)
    duration = price(table, COSTS).duration_s
    together = place(plan_of(TWO, micro_batches=3, sides=()), table, duration)
    turns = place(plan, table, duration)
    assert turns.segment_seconds[0] > together.segment_seconds[0]
    # 48 samples through all stages: the sum of what one sample takes, 48 times.
    from repast_dist.planning.timeline import sample_seconds

    compute = table.where(turns.segment == 0)
    once = sample_seconds(plan, compute, duration[turns.segment == 0]).sum()
    assert turns.segment_seconds[0] == pytest.approx(48 * once)


def test_rows_of_one_bank_never_overlap_outside_the_pipeline():
    plan = plan_of(TWO, chips=2, micro_batches=4)
    table = ops_of(plan)
    duration = price(table, COSTS).duration_s
    placed = place(plan, table, duration)
    start = placed.absolute_start_s()
    for chip in (0, 1):
        for bank in np.unique(table["bank"]):
            mine = (table["chip"] == chip) & (table["bank"] == bank) & (placed.segment > 0)
            order = np.argsort(start[mine])
            ends = (start[mine] + duration[mine])[order]
            assert (start[mine][order][1:] >= ends[:-1] - 1e-15).all()
    assert (start + duration <= placed.step_s + 1e-12).all()


@pytest.mark.parametrize("pipelining", [True, False])
def test_what_needs_the_same_resource_of_a_layer_follows_each_other(pipelining):
    # Gradients and factors of a layer are formed in the same arrays: drawn side by side, they
    # would leave a hole behind them in which the chip seems to wait.
    plan = plan_of(TWO, micro_batches=3, partition=PartitionSpec(pipelining=pipelining))
    table = ops_of(plan)
    duration = price(table, COSTS).duration_s
    placed = place(plan, table, duration)
    start, taken = placed.start_s, {}
    for row in np.flatnonzero(placed.segment == 0):
        op = OPS[table["op"][row]]
        key = (int(table["layer"][row]), op.backward, op.resource)
        taken.setdefault(key, []).append((start[row], start[row] + duration[row]))
    for spans in taken.values():
        spans.sort()
        assert all(begins >= ends - 1e-15 for (_, ends), (begins, _) in itertools.pairwise(spans))
    busiest = max(taken.values(), key=lambda spans: sum(end - begin for begin, end in spans))
    if pipelining:
        # What sets the pace never waits.
        assert sum(end - begin for begin, end in busiest) == pytest.approx(
            busiest[-1][1] - busiest[0][0]
        )


def test_early_layers_are_copied_until_the_pipeline_is_balanced():
    layers = (
        LayerShape(
            name="early", kind=kinds.CONV, in_features=27, out_features=16, vectors_per_sample=256
        ),
        LayerShape(
            name="late", kind=kinds.CONV, in_features=144, out_features=32, vectors_per_sample=16
        ),
    )
    plan = plan_of(Workload(name="conv", layers=layers), micro_batches=16)
    arrays = plan.allocation
    copies = arrays.copies
    assert copies[0] > copies[1] >= 1
    held = (arrays.weights * copies + arrays.pool).sum()
    assert held <= arrays.budget.layers
    # One more copy of the slowest layer would not fit.
    slowest = int(np.argmax(plan.layers.vectors / copies))
    assert held + arrays.weights[slowest] > arrays.budget.layers or copies[0] == 256


def test_a_network_that_does_not_fit_is_reloaded_or_refused():
    wide = Workload(
        name="wide",
        layers=tuple(
            LayerShape(name=f"fc{n}", kind=kinds.DENSE, in_features=1024, out_features=1024)
            for n in range(3)
        ),
    )
    table = ops_of(plan_of(wide, micro_batches=2))
    reloads = row_of(table, "reload_weights")
    assert len(reloads) > 0
    assert reloads["cell_writes"].min() >= 1024 * 1024 * 4
    with pytest.raises(CapacityError, match=r"valid: partition\.overflow=reload"):
        plan_of(wide, partition=PartitionSpec(overflow="error"))


def test_layers_spread_over_chips_when_one_cannot_hold_them():
    wide = Workload(
        name="wide",
        layers=tuple(
            LayerShape(name=f"fc{n}", kind=kinds.DENSE, in_features=512, out_features=256)
            for n in range(4)
        ),
    )
    spread = PartitionSpec(layers="auto", overflow="error")
    plan = plan_of(wide, chips=8, micro_batches=4, partition=spread)
    assert plan.allocation.stages > 1
    assert plan.allocation.resident.all()
    table = ops_of(plan)
    assert len(row_of(table, "send_activations")) == 4 * (plan.allocation.stages - 1)
    assert not len(row_of(table, "reload_weights"))


def test_a_chip_without_inverting_arrays_cannot_do_second_order():
    blind = dataclasses.replace(SMALL, inv=dataclasses.replace(SMALL.inv, arrays_per_bank=0))
    with pytest.raises(SettingsError, match=r"chip\.inv\.arrays_per_bank"):
        plan_of(chip=blind)


def test_a_block_wider_than_an_array_is_inverted_by_halves():
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=300, out_features=8, bias=False)
    network, soi = Workload(name="one", layers=(layer,)), SoiSpec(block_size=512)
    nested = SCHEMES.load({"method": "fcg", "array_pieces": "nested"})
    plan = plan_of(network, soi=soi, inversion=nested)
    assert plan.shapes.size.tolist() == [300, 8]
    # 300 on arrays of 128: quarters of 75; two levels cost 9 settlings per application.
    assert plan.shapes.piece.tolist() == [75, 8]
    solve = row_of(ops_of(plan), "solve_a")
    assert solve["inv_ops"].tolist() == [8 * 8 * 9]
    assert solve["serial_inv_ops"].tolist() == [8 * 8 * 9 // int(plan.places.copies[0])]
    # The diagonal alone: three pieces of 100, which settle at once.
    plan = plan_of(network, soi=soi)
    assert plan.shapes.piece.tolist() == [100, 8]
    solve = row_of(ops_of(plan), "solve_a")
    assert solve["inv_ops"].tolist() == [8 * 8 * 3]
    assert solve["serial_inv_ops"].tolist() == [8 * 8 // int(plan.places.copies[0])]


def test_a_fused_block_holds_activations_instead_of_their_product():
    """65 inputs with bias, 16 samples: the loop holds 65 x 16 and its transpose, on two arrays,
    and the damping.
    """
    fused = plan_of(soi=SoiSpec(fusion="on"), inversion=SCHEMES.load({"method": "single"}))
    assert fused.shapes.fused.all()
    table = ops_of(fused)
    copies = fused.places.copies
    written = row_of(table, "program_block")
    assert written["cell_writes"].tolist() == [
        2 * (2 * 65 * 16 + 65) * copies[0],
        2 * (2 * 10 * 16 + 10) * copies[1],
    ]
    # Two arrays in one bank, written one after the other, 65 (and 16) rows each.
    assert written["serial_row_pulses"][0] == 2 * 65
    for op in ("factor_a", "factor_g", "average_factor", "write_errors"):
        assert not len(row_of(table, op)), op


def test_an_unfused_block_of_the_same_layer_forms_and_writes_its_product():
    apart = plan_of(soi=SoiSpec(fusion="off"), inversion=SCHEMES.load({"method": "single"}))
    table = ops_of(apart)
    written = row_of(table, "program_block")
    assert written["cell_writes"].tolist() == [
        2 * 65 * 65 * apart.places.copies[0],
        2 * 10 * 10 * apart.places.copies[1],
    ]
    assert written["serial_row_pulses"][0] == 65
    assert len(row_of(table, "factor_a")) == 1


@pytest.mark.parametrize("name", ["fashion_mlp", "fashion_cnn", "digits_cnn"])
def test_fusion_is_chosen_for_the_whole_step_and_the_same_on_any_number_of_chips(name):
    """Fused one by one, blocks of the classifier save nothing: a pipeline waits for the others."""
    words = [
        "study=plan", "workload=model", f"model={name}", "chip=repast", "inversion=fcg",
        "optimizer.factor_decay=0", "train.batch_size=64", "train.micro_batch_size=16",
    ]  # fmt: skip
    plans = {
        (fusion, chips): planned_step(
            load_settings([*words, f"soi.fusion={fusion}", f"farm.chips={chips}"])
        )
        for fusion, chips in (("off", 1), ("auto", 1), ("on", 1), ("auto", 3))
    }
    auto = plans["auto", 1]
    assert auto.goal <= min(plans["off", 1].goal, plans["on", 1].goal)
    assert auto.shapes.fused.tolist() == plans["auto", 3].shapes.fused.tolist()
    if name == "fashion_mlp":
        assert not auto.fusion.chosen.any()
        assert auto.shapes.fused.all()
        assert auto.goal < 0.7 * plans["off", 1].goal


def test_fusion_is_chosen_where_it_is_cheaper_and_possible():
    single = SCHEMES.load({"method": "single"})
    auto, at_once = SoiSpec(fusion="auto"), DeviceSpec()
    few, many = (
        plan_of(size=size, soi=auto, inversion=single, device=at_once) for size in (16, 256)
    )
    # 16 rows fit beside their transpose and save 65 products; 256 rows do not fit an array of 128.
    assert few.shapes.fused[0]
    assert not many.shapes.fused.any()
    from repast_dist.planning.plan import fusion_rows

    saved = [row["saved_s"] for row in fusion_rows(few) if row["fused"]]
    assert all(value > 0 for value in saved)
    # With residual products the way through both matrices is taken every round: not worth it.
    long = SoiSpec(fusion="auto", assumed_iterations=100)
    assert not plan_of(size=16, soi=long, device=at_once).shapes.fused[0]
    # The outer amplifiers of a fused circuit are a hundred times slower.
    assert not plan_of(size=16, soi=auto, inversion=single).shapes.fused[0]


@pytest.mark.parametrize("bits", [4, 8, 12, 256])
def test_a_bus_of_any_width_carries_its_bits_per_clock(bits):
    """Four bits per clock take two clocks for a byte, and twelve carry one and a half."""
    table = ops_of(plan_of(chip=dataclasses.replace(SMALL, bus_bits=bits)))
    # Copies of the block lie in all four tiles.
    for op, tiles in (("vmm_forward", 1), ("solve_a", 4)):
        rows = row_of(table, op)
        words = -(-8 * int(rows["buffer_bytes"][0]) // (bits * tiles))
        assert rows["serial_buffer_words"].tolist() == [words]


def test_what_cannot_be_counted_is_refused():
    """A million samples of a million inputs and outputs read 4e19 cells, more than 64 bits hold."""
    huge = LayerShape(name="fc", kind=kinds.DENSE, in_features=10**6, out_features=10**6)
    network = Workload(name="huge", layers=(huge,))
    with pytest.raises(CapacityError, match=r"layer fc reads .*smaller train"):
        plan_of(network, size=10**6, sides=())
    table = ops_of(plan_of(network, size=1000, sides=()), factors_due=False, inverses_due=False)
    rows = row_of(table, "vmm_forward")
    # Of 7 passes, 2 slices and both cells of a pair.
    assert rows["cells_read"].tolist() == [1000 * 10**12 * 7 * 2 * 2]
