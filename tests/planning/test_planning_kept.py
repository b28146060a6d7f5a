"""What is worked out once for several chips, or for all who ask, against itself worked out anew."""

import dataclasses

import numpy as np
import pytest

from repast_dist.network.workload import WorkloadSpec, build_workload
from repast_dist.planning import layer_ops
from repast_dist.planning.block_costs import BlockWork, Solves
from repast_dist.planning.machine import Machine
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings


@pytest.fixture(scope="module")
def machine() -> Machine:
    return load_settings(["study=scaling"]).machine


@pytest.fixture(scope="module")
def work(machine: Machine) -> BlockWork:
    """Work on blocks of several sizes and numbers of right-hand sides."""
    return machine.plan(build_workload(WorkloadSpec(name="resnet18")), 1, 64, 8).block_work


def test_a_plan_is_the_same_whatever_chips_of_the_same_geometry_were_planned_before(
    machine: Machine,
) -> None:
    workload = build_workload(WorkloadSpec(name="resnet18"))
    chips = [
        dataclasses.replace(machine.hardware.chip, **changes)
        for changes in ({}, {"tiles": 90, "bus_bits": 128}, {"digital_lanes": 8})
    ]

    def summaries(forgets: bool) -> list[str]:
        found = []
        for chip in chips:
            if forgets:
                layer_ops._shared.cache_clear()
            found.append(repr(summarise(machine.changed(chip=chip).plan(workload, 1, 64, 8))))
        return found

    fresh = summaries(forgets=True)
    assert len(set(fresh)) == len(chips)
    assert summaries(forgets=False) == fresh


def test_blocks_on_fewer_arrays_per_bank_take_what_they_would_if_counted_for_them(
    work: BlockWork,
) -> None:
    for per_bank in (1, 3):
        shapes = dataclasses.replace(work.shapes, products_per_bank=per_bank)
        anew, kept = BlockWork(shapes, work.hardware, work.policy), work.in_banks(per_bank)
        for of_anew, of_kept in (
            (anew.costs.solving_s, kept.costs.solving_s),
            (anew.costs.renewing_s, kept.costs.renewing_s),
            (anew.energy_j, kept.energy_j),
        ):
            np.testing.assert_array_equal(of_anew, of_kept)
    assert (work.in_banks(1).costs.solving_s != work.in_banks(3).costs.solving_s).any()


def test_solves_with_some_blocks_count_what_these_count_alone(work: BlockWork) -> None:
    place = np.arange(len(work.shapes))[::-3]
    shapes = work.shapes.shared(place, work.shapes.right_sides[place])
    taken = work.renewing.take(place, shapes)
    alone = Solves(shapes, taken.columns, work.hardware)
    copies = np.arange(len(place)) % 4 + 1
    expected = alone.counts(copies, work.banks[place])
    for name, values in taken.counts(copies, work.banks[place]).items():
        np.testing.assert_array_equal(values, expected[name])
