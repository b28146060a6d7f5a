"""Chips that share the right-hand sides of a block: what gets shorter and what grows."""

import numpy as np
import pytest

from repast_dist.network.workload import WorkloadSpec, build_workload
from repast_dist.ops import OPS, price
from repast_dist.planning.ops import step_ops
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings

CHIPS = 8
CODES = {op.name: op.number for op in OPS}


def planned(fraction, *settings):
    chosen = load_settings(
        ["study=scaling", f"partition.grad_worker_fraction={fraction}", *settings]
    )
    network = build_workload(WorkloadSpec(name="vgg13"))
    return chosen.machine.plan(network, CHIPS, 64, 8)


def costs(plan, op_name, inverses_due=True):
    """Rows of one operation: (op table, seconds, joules)."""
    table = step_ops(plan, None, 0, factors_due=True, inverses_due=inverses_due)
    mine = table.where(table["op"] == CODES[op_name])
    priced = price(mine, plan.hardware.costs)
    return mine, priced.duration_s, priced.energy_j


def test_all_right_hand_sides_are_solved_once_whoever_solves_them():
    alone, shared = planned(0.0), planned(1.0)
    assert len(alone.holdings) == len(alone.blocks)
    for plan in (alone, shared):
        solved = np.bincount(plan.holdings.block, plan.holdings.right_sides, len(plan.blocks))
        np.testing.assert_array_equal(solved, plan.shapes.right_sides)
    for op in ("solve_a", "solve_g"):
        # Between renewals: preparing a block is done by all that hold it.
        one, two = costs(alone, op, inverses_due=False), costs(shared, op, inverses_due=False)
        assert two[0]["inv_ops"].sum() == one[0]["inv_ops"].sum()
        assert two[2].sum() == pytest.approx(one[2].sum(), rel=1e-9)


def test_every_chip_that_holds_a_block_programs_it():
    alone, shared = planned(0.0), planned(1.0)
    once, again = costs(alone, "program_block")[0], costs(shared, "program_block")[0]
    block_of = np.unique(again["block"], return_counts=True)
    held = np.bincount(shared.holdings.block)
    np.testing.assert_array_equal(block_of[1], held[block_of[0]])
    cells = dict(zip(once["block"], once["cell_writes"] // alone.places.copies, strict=True))
    expected = [cells[b] * c for b, c in zip(again["block"], shared.places.copies, strict=True)]
    np.testing.assert_array_equal(again["cell_writes"], expected)


def test_sharing_shortens_inversion_and_lengthens_the_exchange_of_factors():
    # One whole factor per layer: few blocks, long solves.
    alone, shared = (planned(f, "soi.block_size=1024") for f in (0.0, 1.0))
    before, after = summarise(alone), summarise(shared)
    # Every chip that holds a block prepares and programs it.
    again = np.bincount(shared.holdings.block) - 1
    repeated_s = (again * shared.block_costs.renewing_s).sum() / shared.policy.soi.interval
    total_s = before.soi_work_s.sum() + repeated_s
    assert after.soi_work_s.sum() == pytest.approx(total_s, rel=1e-9)
    assert after.soi_work_s.max() < before.soi_work_s.max()
    exchange = [costs(plan, "reduce_factors")[1].max() for plan in (alone, shared)]
    assert exchange[1] > exchange[0]


def test_the_energy_of_exchanged_factors_is_that_of_all_bytes_that_travel():
    """Every byte of a factor is added up over all chips, and goes to each further chip that holds
    its block; some blocks have none.
    """
    plan = planned(0.5, "interconnect=switch", "soi.right_sides_at_once=512")
    holders = np.bincount(plan.holdings.block)
    assert holders.min() == 1
    assert holders.max() > 1
    crossed = plan.factor_numbers @ (CHIPS - 1 + holders - 1)
    # 4 bytes a number, 50.78 pJ a bit.
    assert costs(plan, "reduce_factors")[2].sum() == pytest.approx(crossed * 32 * 5.078e-11)


@pytest.mark.parametrize(("network", "chips"), [("switch", 8), ("hierarchical", 48)])
def test_the_energy_of_a_pipelines_gradients_is_that_of_all_its_stages(network, chips):
    """48 chips are twelve replicas of four stages: two on each board of eight."""
    machine = load_settings(["partition.layers=pipeline", f"interconnect={network}"]).machine
    plan = machine.plan(build_workload(WorkloadSpec(name="lenet5")), chips, 96, 2)
    replicas = chips // 4
    assert plan.replicas == replicas
    crossed = plan.layers.parameters.sum() * (replicas - 1)
    for op in ("reduce_gradients", "gather_updates"):
        joules = costs(plan, op)[2].sum()
        assert joules == pytest.approx(crossed * 32 * 5.078e-11)
