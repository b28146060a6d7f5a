"""Which weights stay, how often they are copied, and how many arrays hold inputs."""

import dataclasses
import functools
import itertools
import os

import numpy as np
import pytest

from repast_dist.ground.errors import CapacityError
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.network.workload import NETWORKS, WorkloadSpec, build_workload
from repast_dist.planning import search
from repast_dist.planning.allocation import Allocation, Needs
from repast_dist.planning.options import placed_arrays
from repast_dist.planning.paths import Path
from repast_dist.planning.plan import Plan
from repast_dist.planning.summary import summarise
from repast_dist.planning.wear import cell_writes
from repast_dist.settings import load_settings
from repast_dist.studies.costing import chosen_workload, planned_step

TABLES = sorted(name for name in NETWORKS.names() if name not in ("model", "onnx"))
QUICK = ("resnet101", "vgg16")
ALL = os.environ.get("REPAST_FUZZ") == "full"


def some(turn):
    """Return the quick networks and a third of the others, unless all is asked for."""
    rest = [name for name in TABLES if name not in QUICK]
    slow = rest if ALL else rest[turn::3]
    return [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


@functools.cache
def machine():
    return load_settings(["study=scaling"]).machine


def step_of(workload, chips=1, batch=64, objective="time", **changes):
    """Cost the average step of a network on chips with changed numbers of parts."""
    chip = machine().hardware.chip
    names = ("adcs_per_array", "arrays_per_bank")
    of_arrays = {name: changes.pop(name) for name in names if name in changes}
    vmm = dataclasses.replace(chip.vmm, **of_arrays)
    kept = changes.pop("residual_arrays", chip.residual.arrays_per_bank)
    residual = dataclasses.replace(chip.residual, arrays_per_bank=kept)
    policy = machine().policy
    partition = dataclasses.replace(policy.partition, objective=objective)
    changed = machine().changed(
        chip=dataclasses.replace(chip, vmm=vmm, residual=residual, **changes), partition=partition
    )
    plan = changed.plan(workload, chips, batch, 8)
    return plan, summarise(plan)


def table(name):
    return build_workload(WorkloadSpec(name=name))


def computing_s(step):
    """Time without exchanges between chips."""
    exchanged = ("reduce", "exchange", "gather")
    return sum(s for name, s in step.segment_s.items() if not name.startswith(exchanged))


MORE = {
    "tiles": (40, 80, 150, 160, 200, 300, 400),
    "banks_per_tile": (6, 8, 12, 16, 24),
    "adcs_per_array": (1, 2, 4),
    "arrays_per_bank": (4, 6, 8, 11, 15, 20),
    "residual_arrays": (1, 2, 3, 4, 5, 6, 7),
}
FEW = {
    "tiles": (80, 150, 160, 240),
    "banks_per_tile": (8, 12),
    "adcs_per_array": (1, 2),
    "arrays_per_bank": (8, 15),
    "residual_arrays": (2, 6, 7),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", some(0))
def test_more_tiles_banks_arrays_or_converters_never_make_a_step_slower(name):
    """Beyond 1 %. With fewer steps between, on one chip or on four by turns, unless all is asked
    for.
    """
    workload = table(name)
    of_chips = (1, 4) if ALL or name in QUICK else (1, 4)[TABLES.index(name) % 2 :][:1]
    more = MORE if ALL else FEW
    for chips, part in itertools.product(of_chips, more):
        steps = [step_of(workload, chips, **{part: count})[1].step_s for count in more[part]]
        for count, before, after in zip(more[part][1:], steps, steps[1:], strict=False):
            assert after <= before * 1.01, (name, chips, part, count)


SMALL = {
    "fashion_mlp": ("repast", {"arrays_per_bank": (3, 6, 24)}),
    "fashion_cnn": ("repast", {"arrays_per_bank": (5, 24), "banks_per_tile": (6, 24)}),
    "digits_transformer": ("small", {"arrays_per_bank": (13, 14, 18)}),
}
FINE = {
    "arrays_per_bank": (3, 4, 5, 6, 8, 10, 13, 14, 16, 18, 24),
    "banks_per_tile": (4, 6, 8, 12, 13, 17, 20, 24),
    "tiles": (4, 6, 8, 16, 30, 60, 120, 168, 300),
    "adcs_per_array": (1, 2, 3, 4, 8),
}
EVERY = [
    pytest.param(model, chip, part, FINE[part], marks=pytest.mark.slow)
    for model in ("digits_resnet", "letters_cnn", "text_gpt", *SMALL)
    for chip, part in itertools.product(("repast", "small"), FINE)
]


@pytest.mark.parametrize(
    ("model", "chip", "part", "counts"),
    [(model, chip, *each) for model, (chip, parts) in SMALL.items() for each in parts.items()]
    + (EVERY if ALL else EVERY[::7]),
)
def test_more_parts_never_make_a_step_of_a_small_network_slower(model, chip, part, counts):
    """Beyond 1 %, also where it fills little of the chip: arrays are then spread over more banks
    and tiles.
    """
    settings = load_settings([f"model={model}", "workload=model", f"chip={chip}"])
    workload, spec = chosen_workload(settings), settings.machine.hardware.chip
    steps = []
    for count in counts:
        if part in ("tiles", "banks_per_tile"):
            changed = dataclasses.replace(spec, **{part: count})
        else:
            vmm = dataclasses.replace(spec.vmm, **{part: count})
            changed = dataclasses.replace(spec, vmm=vmm)
        plan = planned_step(settings, settings.machine.changed(chip=changed), workload)
        steps.append(summarise(plan).step_s)
    for place, after in enumerate(steps):
        assert after <= min(steps[: place + 1]) * 1.01, counts[place]


def test_layers_that_leave_banks_empty_lie_in_as_many_tiles_as_there_are():
    """They compute as fast where tiles have more banks, and no tile is counted twice."""
    found = []
    for banks in (6, 12, 24):
        plan, step = step_of(table("lenet5"), banks_per_tile=banks)
        a, chip = plan.allocation, plan.hardware.chip
        for own, places in ((a.weight_banks, a.weight_tiles), (a.pool_banks, a.pool_tiles)):
            assert (places <= np.minimum(own, chip.tiles)).all()
            assert (places * banks >= own).all()
        assert a.weight_tiles.max() * banks > a.weight_banks.max() + banks
        found.append(step.segment_s["compute"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-3)


def test_layers_get_arrays_that_solves_may_keep_where_they_are_worth_more_there():
    """DenseNet-121 computes twice as long with one array per bank as with two."""
    plan, step = step_of(table("densenet121"), residual_arrays=7)
    chip, solvers = plan.hardware.chip, plan.shapes.products_per_bank
    assert solvers < 7
    assert plan.allocation.budget.solvers == solvers * chip.banks
    fewer = [step_of(table("densenet121"), residual_arrays=count)[1] for count in (1, 2, 3)]
    assert step.step_s <= min(other.step_s for other in fewer) * 1.01
    # The converters of residual products are there, whether or not blocks use all of them.
    assert plan.hardware.area_m2 > machine().hardware.area_m2


def test_blocks_without_residual_products_leave_all_multiplying_arrays_to_layers():
    settings = load_settings(["study=scaling", "inversion=single"])
    plan = settings.machine.plan(table("lenet5"), 1, 64, 8)
    assert not plan.shapes.product_arrays.any()
    assert plan.allocation.budget.layers == plan.hardware.chip.vmm_arrays


@pytest.mark.parametrize("arrays", [(11, 15), (15, 20)])
def test_more_arrays_in_a_bank_are_not_filled_at_the_cost_of_converters_and_buses(arrays):
    """Layers that lie in more banks have more of them: neither all arrays nor half of them."""
    parts = {"tiles": 149, "banks_per_tile": 19, "adcs_per_array": 4}
    before, after = (
        step_of(table("mixer_b16"), batch=128, arrays_per_bank=count, **parts)[1].step_s
        for count in arrays
    )
    assert after <= before * 1.01


@pytest.mark.slow
def test_residual_products_keep_no_more_arrays_than_are_of_use():
    """LeNet-5 does not fill this chip: with more of them per bank, blocks lie in fewer banks, with
    fewer lanes and buses, and solves take up to a fifth longer.
    """
    parts = {"tiles": 201, "banks_per_tile": 23, "adcs_per_array": 4, "arrays_per_bank": 20}
    steps = [
        step_of(table("lenet5"), 4, 128, residual_arrays=count, **parts)[1].step_s
        for count in range(1, 8)
    ]
    for place, after in enumerate(steps):
        assert after <= min(steps[: place + 1]) * 1.01, place + 1


def test_a_chip_uses_as_many_arrays_as_spread_its_slowest_layer_over_no_fewer_banks():
    """Where a few more arrays are used, those for the inputs of ViT's wide layers lie in 20 banks
    of 7,880, not in 21, and the step takes a tenth longer.
    """
    parts = {"tiles": 394, "adcs_per_array": 2, "arrays_per_bank": 17, "residual_arrays": 4}
    before, after = (
        step_of(table("vit_b16"), 4, 256, banks_per_tile=banks, **parts)[1].step_s
        for banks in (19, 20)
    )
    assert after <= before * 1.001


@pytest.mark.parametrize("name", some(1))
def test_more_chips_never_compute_longer(name):
    """For a fixed batch. What chips exchange takes longer with more of them: the latency of a
    collective grows with their number, so a whole step may get slower, and all chips work all the
    same.
    """
    workload, counts = table(name), (1, 2, 4, 8, 16, 64) if ALL else (1, 2, 8, 64)
    steps = [step_of(workload, chips)[1] for chips in counts]
    for before, after in itertools.pairwise(map(computing_s, steps)):
        assert after <= before * 1.01
    # Samples take as much work on few chips as on many, so that the layers alone never gain more
    # than there are chips.
    for chips, step in zip(counts, steps, strict=True):
        assert step.segment_s["compute"] * chips >= steps[0].segment_s["compute"] * 0.99


@pytest.mark.parametrize("model", ["digits_mlp", "digits_resnet"])
def test_the_goal_is_the_time_of_steps_of_which_only_some_form_factors(model):
    found = {}
    for objective in ("time", "lifetime"):
        settings = load_settings(
            [
                f"model={model}", "workload=model", "farm.chips=1", "train.micro_batch_size=128",
                "soi.interval=10", "soi.factor_interval=10", f"partition.objective={objective}",
            ]
        )  # fmt: skip
        plan = planned_step(settings)
        found[objective] = segments = summarise(plan).segment_s
        computing = segments["compute"] + segments.get("write weights", 0.0)
        assert plan.allocation.goal == pytest.approx(computing, rel=0.02)
    assert found["time"]["compute"] <= 1.01 * found["lifetime"]["compute"]


def test_energy_as_objective_takes_no_more_energy_than_time_and_time_no_more_time():
    for name in QUICK:
        fast, frugal = (step_of(table(name), objective=goal)[1] for goal in ("time", "energy"))
        assert fast.step_s <= frugal.step_s * 1.01
        assert frugal.energy_j <= fast.energy_j * 1.001


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_lifetime_as_objective_outlasts_the_others_and_more_tiles_never_shorten_it(name):
    lasting = []
    for tiles in (60, 150, 300):
        steps = {
            goal: step_of(table(name), objective=goal, tiles=tiles)[1].wear
            for goal in ("time", "energy", "lifetime")
        }
        lives = {goal: wear.lifetime_steps[wear.first] for goal, wear in steps.items()}
        assert lives["lifetime"] >= max(lives.values()) * (1 - 1e-9)
        lasting.append(lives["lifetime"])
    assert lasting == sorted(lasting)
    assert lasting[-1] > 2 * step_of(table(name), tiles=300)[1].wear.lifetime_steps["activations"]


def test_blocks_take_no_turns_for_the_sake_of_time_where_cells_shall_last():
    """A chip holds all blocks of ResNet-18, but would solve faster with some in turns."""
    fast, lasting = (step_of(table("resnet18"), objective=goal)[0] for goal in ("time", "lifetime"))
    assert not fast.places.stays.all()
    assert lasting.places.stays.all()


def test_no_chip_gives_away_more_arrays_than_it_has():
    for name, tiles in itertools.product(("vgg16", "resnet50"), (20, 168)):
        plan, _ = step_of(table(name), tiles=tiles)
        a = plan.allocation
        assert (a.written + a.pool).sum() <= a.budget.layers
        assert (a.written[a.resident] == (a.weights * a.copies)[a.resident]).all()
        assert (a.written < a.weights)[~a.resident].all()


def test_a_chip_with_fewer_arrays_than_layers_is_refused():
    with pytest.raises(CapacityError, match=r"at least \d+: one for the weights"):
        step_of(table("resnet101"), tiles=2, banks_per_tile=4)


@pytest.mark.parametrize("objective", ["time", "energy"])
@pytest.mark.parametrize("tiles", [pytest.param(20, marks=pytest.mark.slow), 168])
def test_divisions_that_cannot_be_better_are_left_out_and_no_other(monkeypatch, objective, tiles):
    def allocations():
        for name, adcs in itertools.product(("vgg16", "resnet50"), (1, 8)):
            plan, _ = step_of(table(name), objective=objective, tiles=tiles, adcs_per_array=adcs)
            yield vars(plan.allocation)

    def tried(*_):
        calls.append(1)
        return chosen(*_)

    calls, chosen = [], Path.choices
    monkeypatch.setattr(Path, "choices", tried)
    found, few = list(allocations()), len(calls)
    monkeypatch.setattr(Path, "may_reach", lambda *_: True)
    every, many = list(allocations()), len(calls) - few
    assert few < 0.7 * many
    for one, other in zip(found, every, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


# Exhaustive search ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "model", "tiles", "within"),
    [
        ("letters", "letters_cnn", 6, 1.0),
        ("letters", "letters_cnn", 12, 1.0),
        ("digits", "digits_resnet", 6, 1.01),
        ("text", "text_gpt", 6, 1.02),
        ("text", "text_gpt", 96, 1.02),
    ],
)
def test_no_number_of_arrays_of_a_small_chip_is_better_than_the_one_that_is_found(
    monkeypatch, data, model, tiles, within
):
    """One bank more or less for a layer is a large part of what it has there: 27 % were lost."""
    found = []

    def compared(broad, budget, goal):
        division = divided(broad, budget, goal)
        best = min(
            one.value
            for used in range(1, budget.layers + 1, 1 + budget.layers // 400)
            for one in search._divisions(broad, used, goal, division.value)
        )
        found.append(division.value / best)
        return division

    divided = search._divided
    monkeypatch.setattr(search, "_divided", compared)
    words = f"model={model} dataset={data} optimizer=newton_muon inversion.method=single"
    chip = f"chip.tiles={tiles} chip.inv.size=72 chip.vmm.arrays_per_bank=16 chip.input_bits=4"
    planned_step(
        load_settings(
            [*words.split(), *chip.split(), "workload=model", "soi.block_size=72", "farm.chips=1"]
        )
    )
    assert found
    assert max(found) <= within


def conv(name, rows, columns, vectors):
    return LayerShape(
        name=name,
        kind=kinds.CONV,
        in_features=rows,
        out_features=columns,
        vectors_per_sample=vectors,
    )


SMALL_CASES = {
    "early layers are long": (conv("a", 27, 16, 64), conv("b", 144, 32, 16)),
    "late layers are wide": (conv("a", 200, 32, 9), conv("b", 600, 100, 2)),
    "nothing fits": (conv("a", 2048, 64, 4), conv("b", 2048, 96, 8)),
}


def every_division(plan):
    """Yield all ways to give the arrays of a chip to two layers, spread over all its banks."""
    needs = Needs.of(plan.layers, plan.hardware, plan.work)
    budget = plan.allocation.budget
    choices = []
    for weights, inputs, vectors in zip(
        needs.weights.tolist(),
        needs.activations.tolist(),
        plan.layers.vectors.tolist(),
        strict=True,
    ):
        written = [(arrays, 0) for arrays in range(1, weights)]
        written += [(copies * weights, copies) for copies in range(1, vectors + 1)]
        choices.append(
            [
                (arrays, copies, pool)
                for arrays, copies in written
                for pool in sorted({-(-inputs // filled) for filled in range(1, inputs + 1)})
                if arrays + pool < budget.layers
            ]
        )
    for chosen in itertools.product(*choices):
        written, copies, pool = np.array(chosen).T
        if (written + pool).sum() > budget.layers:
            continue
        placed = placed_arrays(plan.layer_work, needs, budget.layers, (written, copies, pool))
        yield Allocation(
            **vars(placed),
            stages=1,
            stage=np.zeros(len(needs.weights), np.int64),
            budget=budget,
            goal=np.nan,
        )


@pytest.mark.slow
@pytest.mark.parametrize("case", SMALL_CASES)
def test_the_search_is_within_a_tenth_of_the_best_of_all_divisions(case):
    workload = Workload(name="small", layers=SMALL_CASES[case])
    plan, _ = step_of(workload, batch=16, tiles=1, banks_per_tile=2)
    best = min(computing_of(plan, division) for division in every_division(plan))
    assert computing_of(plan, plan.allocation) <= best * 1.1


@pytest.mark.parametrize(
    "case",
    [
        *list(SMALL_CASES)[:1],
        *(pytest.param(c, marks=pytest.mark.slow) for c in list(SMALL_CASES)[1:]),
    ],
)
def test_no_division_is_written_less_often_than_the_one_that_lasts(case):
    workload = Workload(name="small", layers=SMALL_CASES[case])
    plan, _ = step_of(workload, batch=16, tiles=1, banks_per_tile=2, objective="lifetime")
    fewest = min(writes_of(plan, division) for division in every_division(plan))
    assert writes_of(plan, plan.allocation) <= fewest * (1 + 1e-9)


def writes_of(plan, allocation):
    """Writes per step of the cells of layers that are written most."""
    written = cell_writes(dataclasses.replace(plan, allocation=allocation))
    return max(written.weights, written.activations)


def computing_of(plan, allocation):
    """Time of computing and of writing weights, by the timeline of the step's own rows."""
    changed: Plan = dataclasses.replace(plan, allocation=allocation)
    step = summarise(changed)
    return step.segment_s["compute"] + step.segment_s["write weights"]
