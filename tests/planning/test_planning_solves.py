"""What the planner prices is what a run counts: every number of every scheme, without tolerance."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from repast_dist.analog import LOSSLESS, SCHEMES, DeviceSpec, InvSpec, OpAmpSpec, Rows, prepare
from repast_dist.analog.prices import OperationPrices, Prices, by_number
from repast_dist.analog.schemes.base import added, as_counts
from repast_dist.analog.solution import SolveCounts
from repast_dist.planning.blocks import SoiBlock
from repast_dist.planning.solves import block_shapes, fuse, modelled_preparations, modelled_solves
from repast_dist.settings import load_settings

ARRAY = 32
ON_ARRAYS = ["single", "taylor", "refine", "fcg", "auto"]
# Whole and halved once and twice, in even and uneven pieces; 65 has halves of 33 and 32.
SIZES = [1, 17, 32, 33, 64, 65, 101]


@functools.cache
def hardware():
    base = load_settings(["chip=repast"]).hardware
    chip = dataclasses.replace(base.chip, inv=dataclasses.replace(base.chip.inv, size=ARRAY))
    return dataclasses.replace(base, chip=chip, device=DeviceSpec())


def block_of(size, held, seed=0):
    """Rectified activations of so many samples: a few directions dominate."""
    random = np.random.default_rng(seed)
    hidden = np.maximum(random.normal(size=(size, size)) @ random.normal(size=(size, held)), 0)
    return hidden / (hidden.std() or 1.0)


def right_hand_sides(size, columns):
    """Some of which need fewer rounds than others, one of them none."""
    random = np.random.default_rng(1)
    right = random.normal(size=(size, columns))
    right[:, 1] = 0.0
    right[:, 2] = 0.0
    right[0, 2] = 1.0
    return right


def shapes_of(size, sides, held, scheme, fused, interval=1):
    block = SoiBlock(0, 0, "layer", "A", 0, size)
    sides, held = np.array([sides]), np.array([held])
    shapes = block_shapes(
        np.array([block.size]), sides, held, hardware(), scheme, interval=interval
    )
    return fuse(shapes, np.array([True]), hardware()) if fused else shapes


def check(
    scheme, size, held=24, *, fused=False, columns=6, opamp=None, prices=by_number, start=None,
    solver_too=False,
):  # fmt: skip
    vmm, inv = hardware().residual_spec, hardware().inv_spec
    if opamp is not None:
        inv = dataclasses.replace(inv, device=dataclasses.replace(inv.device, opamp=opamp))
    rows = block_of(size, held)
    formed = rows @ rows.T / held + 0.1 * np.eye(size)
    operator = Rows(rows, 0.1) if fused else formed
    solver = prepare(operator, vmm, inv, scheme, 3, "test", prices=prices, start=start)
    solution = solver.solve(right_hand_sides(size, columns))
    found = np.array([solver.deflation.rank if solver.deflation else 0])
    one = shapes_of(size, 1, held, scheme, fused, prices(size).right_sides)
    used = solver.scheme
    settled = used.arrays(inv).read_cycles is None
    each = [
        used.solve_counts(
            one, np.array([rounds]), inv, found, settling_s=solver.settling_s if settled else None
        )
        for rounds in solution.iterations.tolist()
    ]
    # Of a product: subtracted from the right-hand side, and the norm of what is left.
    refreshed = SolveCounts(
        vmm_ops=solution.refreshes,
        digital_ops=solution.refreshes * size,
        moved=(3 + 2) * solution.refreshes * size,
    )
    assert_same(solution.counts, as_counts(added(*each)) + refreshed)
    test_s = solver.test_s if settled else None
    programmed = scheme.program_counts(
        one, vmm.device.cell, inv, found, solver.trials, test_s, start is not None
    )
    assert_same(solver.program_counts, as_counts(programmed))
    return (solution, solver) if solver_too else solution


def assert_same(one, other):
    """Counts are the same whole numbers; seconds add up in another order."""
    assert dataclasses.replace(one, settling_s=0.0) == dataclasses.replace(other, settling_s=0.0)
    assert one.settling_s == pytest.approx(other.settling_s, rel=1e-12)


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ON_ARRAYS)
def test_what_is_priced_is_what_a_solve_counts(method, size, slices):
    scheme = SCHEMES.load({"method": method, "array_slices": slices, "target_bits": 10})
    solution = check(scheme, size)
    if method not in ("single", "auto"):
        # Right-hand sides did take different rounds.
        assert solution.iterations[1] == 0
        assert solution.iterations.max() >= 1


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_pieces_of_a_diagonal_are_counted_as_settling_at_once(size, slices):
    data = {"method": "fcg", "array_pieces": "diagonal", "array_slices": slices}
    solution = check(SCHEMES.load(data), size, opamp=OpAmpSpec(gbw_hz=1e8))
    assert solution.converged.all()
    pieces, counts = -(-size // ARRAY), solution.counts
    # No product but those of residuals, and the time of one settling a round.
    rounds = int(solution.iterations.sum())
    assert counts.inv_ops == pieces * rounds
    assert counts.beside == (pieces - 1) * rounds
    assert counts.vmm_ops == rounds + solution.refreshes
    assert counts.settling_s == pytest.approx(rounds * 12 / 1e8)


@pytest.mark.parametrize("pieces", ["nested", "diagonal"])
@pytest.mark.parametrize("size", SIZES)
def test_an_inverse_is_counted_column_by_column_and_as_one_product_afterwards(size, pieces):
    data = {"method": "explicit", "target_bits": 8, "array_pieces": pieces}
    many = Prices(right_sides=2 * size)
    solution, solver = check(SCHEMES.load(data), size, prices=lambda _: many, solver_too=True)
    assert solution.converged.all()
    assert solution.counts.vmm_ops == np.count_nonzero(solution.iterations)
    assert solution.counts.inv_ops == 0
    # Columns of the identity were solved with by rounds, each with a product at least.
    assert len(solver.trials[0].rounds) == size
    assert solver.program_counts.vmm_ops >= size


def test_an_inverse_of_too_few_bits_is_not_used_but_paid():
    data = {"method": "explicit", "target_bits": 8, "product_bits": 10, "max_iterations": 30}
    many = Prices(right_sides=200)
    solution, solver = check(SCHEMES.load(data), 64, prices=lambda _: many, solver_too=True)
    assert solution.method == "fcg"
    assert len(solver.trials[0].rounds) == 64


@pytest.mark.parametrize(("right_sides", "method"), [(63, "fcg"), (64, "explicit")])
def test_an_inverse_is_formed_for_right_hand_sides_enough(right_sides, method):
    data = {"method": "explicit", "target_bits": 8, "inverse_from": 2.0}
    prices = Prices(right_sides=right_sides)
    solution = check(SCHEMES.load(data), 32, prices=lambda _: prices)
    assert solution.method == method


def test_a_plan_counts_every_column_of_an_inverse():
    """As a run does whose columns all take the assumed rounds."""
    scheme = SCHEMES.load({"method": "explicit", "deflation": 0, "array_pieces": "nested"})
    shapes = shapes_of(40, 10, 20, scheme, fused=False, interval=8)
    (planned,) = modelled_preparations(shapes, scheme, hardware(), 7)["vmm_ops"].tolist()
    # 40 columns of 7 rounds, each with a product and, halved once, two couplings; four tries.
    assert planned == 40 * 7 * 3 + 4 + 4
    (solving,) = modelled_solves(shapes, scheme, hardware(), 7)["vmm_ops"].tolist()
    assert solving == 10


@pytest.mark.parametrize("after", [9.0, "settled"])
@pytest.mark.parametrize("method", ["single", "fcg", "pieces", "auto"])
@pytest.mark.parametrize(("size", "fused"), [(17, False), (101, False), (17, True)])
def test_settlings_that_find_the_drive_of_an_array_are_counted(method, size, fused, after):
    opamp = OpAmpSpec(gbw_hz=1e8, swing_v=0.5, slew_v_per_s=1e8, drive_tests=3)
    data = {"method": method, "target_bits": 8, "array_read_after": after}
    if method == "pieces":
        data |= {"method": "fcg", "array_pieces": "diagonal"}
    if fused and method == "auto":
        data["method"] = "refine"
    solution = check(SCHEMES.load(data), size, fused=fused, opamp=opamp)
    # Where a block is inverted by halves, auto may do without the arrays that it tried.
    assert solution.counts.settling_s > 0 or solution.method == "cg"
    assert not solution.saturated


@pytest.mark.parametrize("size", SIZES)
def test_conjugate_gradients_without_arrays_count_their_products_alone(size):
    solution = check(SCHEMES.load({"method": "cg", "target_bits": 12}), size)
    assert solution.counts.inv_ops == 0


@pytest.mark.parametrize("size", SIZES)
def test_the_digital_unit_counts_a_factorisation_and_right_hand_sides(size):
    solution = check(SCHEMES.load({"method": "cholesky", "target_bits": 12}), size)
    assert solution.converged.all()
    # Of six right-hand sides one is zero, and of one row another is an entry that is there.
    assert solution.counts.factored_sides == np.count_nonzero(solution.iterations)
    assert solution.counts.vmm_ops == solution.counts.inv_ops == 0


@pytest.mark.parametrize("method", ["fcg", "cg", "auto", "explicit"])
@pytest.mark.parametrize("size", [17, 64, 101])
def test_a_search_for_directions_that_goes_on_is_counted(method, size):
    scheme = SCHEMES.load({"method": method, "deflation_recycled": True, "target_bits": 8})
    prices = Prices(right_sides=2 * size)
    _, first = check(scheme, size, prices=lambda _: prices, solver_too=True)
    _, again = check(
        scheme, size, prices=lambda _: prices, start=first.seen, solver_too=True
    )  # fmt: skip
    if method in ("fcg", "cg"):
        # One product with each of five, eight or ten vectors instead of three.
        assert again.program_counts.vmm_ops * 3 == first.program_counts.vmm_ops


def test_a_plan_takes_searches_to_go_on():
    scheme = SCHEMES.load({"method": "cg", "deflation_recycled": True})
    shapes = shapes_of(64, 10, 20, scheme, fused=False)
    (planned,) = modelled_preparations(shapes, scheme, hardware(), 7)["vmm_ops"].tolist()
    assert planned == 64 // 16 + 4


@pytest.mark.parametrize("conjugate", [1, 2, 4])
@pytest.mark.parametrize("deflation", [0, 1, 8])
@pytest.mark.parametrize("size", [32, 101])
def test_deflation_and_further_directions_are_counted(size, deflation, conjugate):
    data = {"method": "fcg", "deflation": deflation, "conjugate": conjugate, "array_copies": 2}
    solution = check(SCHEMES.load(data), size)
    assert solution.converged.all()


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("method", ["taylor", "refine", "fcg", "cg"])
def test_solves_that_are_cut_short_are_counted_to_the_end(method, rounds):
    data = {"method": method, "max_iterations": rounds, "target_bits": 24, "product_bits": 40}
    solution = check(SCHEMES.load(data), 64)
    assert solution.iterations.max() == rounds


def test_residuals_that_are_computed_again_are_counted():
    """With few bits in the products, roundings add up and are looked after."""
    solution = check(SCHEMES.load({"method": "cg", "product_bits": 16, "target_bits": 14}), 64)
    assert solution.refreshes > 0


@pytest.mark.parametrize("method", ["single", "refine", "fcg", "cg", "auto"])
@pytest.mark.parametrize(("size", "held"), [(32, 8), (16, 32), (1, 3)])
def test_fused_blocks_are_counted_with_their_damping(method, size, held):
    slices = {} if method == "cg" else {"array_slices": 2}
    check(SCHEMES.load({"method": method, "target_bits": 10, **slices}), size, held, fused=True)


@pytest.mark.parametrize("target_bits", [5, 16])
def test_all_that_auto_tries_is_counted(target_bits):
    check(SCHEMES.load({"method": "auto", "target_bits": target_bits}), 64)


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize(
    ("array", "right_sides", "tried"),
    [(6.0, 1000, ["cg", "fcg", "cg"]), (1e4, 10**6, ["cg", "fcg"]), (1e4, 1, ["cg"])],
)
def test_what_auto_tries_before_it_writes_an_array_is_counted_once(size, array, right_sides, tried):
    """Cut off before it converges; compared with an array; and without one."""
    of = OperationPrices(array=array)
    scheme = SCHEMES.load({"method": "auto", "target_bits": 10, "deflation": 8})
    prices = Prices(of, of, right_sides)
    _, solver = check(scheme, size, prices=lambda _: prices, solver_too=True)
    names = [trial.scheme.name for trial in solver.trials if trial.scheme.name != "refine"]
    # A block wider than an array with the pieces of its diagonal, then with nested halves.
    names = [name for name, _ in itertools.groupby(names)]
    assert names[: len(tried)] == tried[: len(names)]
    assert ("fcg" in names) == ("fcg" in tried)


@pytest.mark.parametrize("method", [*ON_ARRAYS, "cg"])
def test_the_planner_assumes_the_same_rounds_for_every_right_hand_side(method):
    scheme = SCHEMES.load({"method": method})
    shapes = shapes_of(65, 20, 24, scheme, fused=False)
    rounds = np.array([scheme.rounds(7)])
    inv = hardware().inv_spec
    planned = modelled_solves(shapes, scheme, hardware(), 7)
    assert planned == scheme.solve_counts(shapes, rounds, inv)
    one = scheme.solve_counts(shapes_of(65, 1, 24, scheme, False), rounds, inv)
    assert all(planned[name] == 20 * one[name] for name in planned)
    cells = modelled_preparations(shapes, scheme, hardware(), 7)["program_cells"]
    assert (cells > 0).all()


def test_trials_of_auto_are_planned_with_the_assumed_rounds():
    """Four right-hand sides are tried with fcg: a settling each for every round."""
    scheme = SCHEMES.load({"method": "auto"})
    shapes = shapes_of(ARRAY, 20, 24, scheme, fused=False)
    prepared = [modelled_preparations(shapes, scheme, hardware(), r)["inv_ops"] for r in (7, 8)]
    assert [int(ops[0]) for ops in prepared] == [4 * 7, 4 * 8]


def test_halves_of_a_block_are_halved_alike():
    """Four pieces of 65 rows on arrays of 32, although one half would fit with one halving."""
    assert (
        prepare(
            np.eye(65), LOSSLESS, InvSpec(size=ARRAY), SCHEMES.load({"method": "single"})
        ).array.inv_ops
        == 9
    )
