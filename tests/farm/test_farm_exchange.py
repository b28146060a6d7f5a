"""Sums over micro-batches: one tree, whoever adds what."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from repast_dist.farm.exchange import Parcel, TreeSum, gradient_pieces
from repast_dist.mapping.blocks import SoiBlock


def summed(vectors, owners):
    """Add vectors up as hosts would: each its own, then one of them all parts."""
    hosts = {owner: TreeSum(len(vectors)) for owner in owners}
    for number, owner in enumerate(owners):
        hosts[owner].add((0, number), vectors[number].copy())
    whole = TreeSum(len(vectors))
    for host in hosts.values():
        for node, part in host.nodes.items():
            sent = part.copy()
            sent.flags.writeable = False
            whole.add(node, sent)
    return whole.total, max(len(host.nodes) for host in hosts.values())


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


def test_a_parcel_carries_the_columns_and_the_diagonal_blocks_of_its_host():
    blocks = [
        SoiBlock(index=0, layer=0, layer_name="dense", factor="A", start=0, stop=2),
        SoiBlock(index=1, layer=0, layer_name="dense", factor="A", start=2, stop=3),
        SoiBlock(index=2, layer=0, layer_name="dense", factor="G", start=0, stop=4),
    ]
    pieces = gradient_pieces({"dense": (3, 4), "norm": (1, 5)}, blocks, [0, 1, 0], [0, 1])
    parcel = Parcel([piece for piece in pieces if piece.chip == 0], [blocks[0], blocks[2]])
    gradients = {"dense": np.arange(12.0).reshape(3, 4), "norm": np.ones((1, 5))}
    factors = {("dense", "A"): np.arange(9.0).reshape(3, 3), ("dense", "G"): np.eye(4)}

    vector = parcel.pack(gradients, factors)
    np.testing.assert_array_equal(parcel.gradients(vector)["dense", 0, 4], gradients["dense"])
    held = parcel.factors(vector)
    np.testing.assert_array_equal(held[0], [[0.0, 1.0], [3.0, 4.0]])
    np.testing.assert_array_equal(held[2], np.eye(4))
    assert set(held) == {0, 2}
    assert parcel.factors(parcel.pack(gradients, {})) == {}
