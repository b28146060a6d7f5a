"""Sums over micro-batches: one tree, whoever adds what."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from repast_dist.analog import SCHEMES
from repast_dist.farm.exchange import Bucket, TreeSum, solve_tasks, within
from repast_dist.planning.blocks import SoiBlock, even_ranges
from repast_dist.planning.holdings import make_holdings
from repast_dist.planning.owners import block_owners
from repast_dist.planning.specs import PartitionSpec, Policy, SoiSpec, StepWork
from repast_dist.training.second_order import block_traces


def summed(vectors, owners):
    """Add vectors up as workers would: each its own, then one of them all parts."""
    workers = {owner: TreeSum(len(vectors)) for owner in owners}
    for number, owner in enumerate(owners):
        workers[owner].add((0, number), vectors[number].copy())
    whole = TreeSum(len(vectors))
    for worker in workers.values():
        for node, part in worker.nodes.items():
            sent = part.copy()
            sent.flags.writeable = False
            whole.add(node, sent)
    return whole.total, max(len(worker.nodes) for worker in workers.values())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_sum_has_the_same_bits_whoever_adds_what(data):
    count = data.draw(st.integers(1, 33))
    owners = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    vectors = random.standard_normal((count, 7)) * 10.0 ** random.integers(-8, 8, (count, 1))
    alone, _ = summed(vectors, [0] * count)
    spread, _ = summed(vectors, owners)
    assert alone.tobytes() == spread.tobytes()
    exact = [math.fsum(column) for column in vectors.T]
    np.testing.assert_allclose(alone, exact, rtol=0, atol=1e-15 * np.abs(vectors).sum(axis=0).max())


def test_neighbouring_micro_batches_travel_as_one_vector():
    _, nodes = summed(np.ones((16, 3)), [number // 4 for number in range(16)])
    assert nodes == 1


def blocks_of(rows, columns, width):
    """A layer's A and G blocks."""
    ranges = [("A", r) for r in even_ranges(rows, -(-rows // width))]
    ranges += [("G", r) for r in even_ranges(columns, -(-columns // width))]
    return tuple(
        SoiBlock(n, 0, "dense", factor, start, stop)
        for n, (factor, (start, stop)) in enumerate(ranges)
    )


def tasks_of(rows, columns, width, chips, fraction, at_once):
    blocks = blocks_of(rows, columns, width)
    right_sides = np.array([columns if b.factor == "A" else rows for b in blocks])
    costs = right_sides * 1.0
    owner = block_owners(blocks, costs, chips, "lpt")
    policy = Policy(
        soi=SoiSpec(right_sides_at_once=at_once),
        partition=PartitionSpec(grad_worker_fraction=fraction),
        inversion=SCHEMES.load({}),
    )
    work = StepWork(chips=chips, micro_batches=1, micro_batch_size=1)
    holdings = make_holdings(blocks, owner, right_sides, costs, policy, work)
    shapes = {"dense": (rows, columns), "norm": (1, 5)}
    return (*solve_tasks(shapes, blocks, holdings, tuple(range(chips))), blocks, holdings)


@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.integers(1, 5),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(1, 8),
)  # fmt: skip
def test_every_entry_of_a_gradient_is_reduced_and_solved_once(
    rows, columns, width, chips, fraction, at_once
):
    pieces, tasks, blocks, holdings = tasks_of(rows, columns, width, chips, fraction, at_once)
    for kind, wanted in ((pieces, "G"), (tasks, "A")):
        covered = np.zeros((rows, columns), int)
        for task in kind:
            if task.block is not None:
                assert blocks[task.block].factor == wanted
                covered[within(task.area, ("dense", 0, rows, 0, columns))] += 1
        assert (covered == 1).all()
    assert [p.area for p in pieces if p.block is None] == [("norm", 0, 1, 0, 5)]
    most = max(1, int(np.ceil(fraction * chips - 1e-9)))
    held = np.bincount(holdings.block, minlength=len(blocks))
    assert held.min() >= 1
    assert held.max() <= most
    assert len({*zip(holdings.block.tolist(), holdings.chip.tolist(), strict=True)}) == len(
        holdings
    )


def test_the_areas_solved_together_do_not_depend_on_chips_or_fraction():
    def areas(chips, fraction):
        pieces, tasks, *_ = tasks_of(20, 30, 8, chips, fraction, 4)
        return [task.area for task in pieces + tasks]

    assert areas(1, 0.0) == areas(5, 0.0) == areas(5, 0.5) == areas(3, 1.0)


def test_a_parcel_carries_the_areas_and_the_diagonal_blocks_of_its_host():
    pieces, _, blocks, _ = tasks_of(3, 4, 2, 1, 0.0, 2)
    mine = [piece for piece in pieces if piece.area[4] <= 2 or piece.block is None]
    bucket = Bucket(mine, [blocks[0], blocks[3]], blocks)
    gradients = {"dense": np.arange(12.0).reshape(3, 4), "norm": np.ones((1, 5))}
    factors = {("dense", "A"): np.arange(9.0).reshape(3, 3), ("dense", "G"): np.eye(4)}

    traces = block_traces(blocks, factors, {}, ())
    vector = bucket.pack(gradients, factors, traces)
    views = bucket.gradients(vector)
    assert set(views) == {piece.area for piece in mine}
    for (name, top, bottom, left, right), values in views.items():
        np.testing.assert_array_equal(values, gradients[name][top:bottom, left:right])
    held = bucket.factors(vector)
    np.testing.assert_array_equal(held[0], [[0.0]])
    np.testing.assert_array_equal(held[3], np.eye(2))
    np.testing.assert_array_equal(bucket.traces(vector), traces)
    assert traces.tolist() == [0.0, 12.0, 2.0, 2.0]
    first_order = bucket.pack(gradients, {}, None)
    assert len(first_order) == len(vector) - len(traces) - 1 - 4
    assert set(bucket.gradients(first_order)) == set(views)
