"""Blocks, their owners, and the exchange between chips."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import load
from repast_dist.hardware import TOPOLOGIES, InterconnectSpec
from repast_dist.hardware.all_reduce import halving_doubling_all_reduce_s
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.planning import soi_blocks
from repast_dist.planning.collectives import (
    all_reduce,
    all_to_all,
    dimensions_for,
    gather_from_owners,
    group_dimensions,
    reduce_to_owners,
    send,
)
from repast_dist.planning.owners import (
    Room,
    balance,
    block_owners,
    longest_first,
    micro_batch_owners,
)
from repast_dist.planning.specs import FactorWidth, SoiSpec

A, BANDWIDTH = 1e-6, 1e9


def network(*dimensions, algorithm="auto", add=0.0):
    return InterconnectSpec(
        source="test",
        dimensions=tuple(
            TOPOLOGIES.get(topology)(
                chips=chips,
                latency_s=A,
                bandwidth_bytes_per_s=BANDWIDTH,
                energy_j_per_bit=1e-12,
            )
            for topology, chips in dimensions
        ),
        all_reduce=algorithm,
        reduce_s_per_byte=add,
    )


def test_blocks_cover_every_factor_once_and_evenly():
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=600, out_features=257)
    blocks = soi_blocks(Workload(name="w", layers=(layer,)), 256)
    a = [(b.start, b.stop) for b in blocks if b.factor == "A"]
    assert a == [(0, 200), (200, 400), (400, 601)]
    assert [b.size for b in blocks if b.factor == "G"] == [128, 129]
    assert [b.index for b in blocks] == list(range(5))


def test_single_factors_may_have_widths_of_their_own():
    layers = tuple(
        LayerShape(name=name, kind=kinds.DENSE, in_features=600, out_features=257)
        for name in ("one", "other")
    )
    widths = [
        FactorWidth(layer="one", factor="A", block_size=601),
        FactorWidth(layer="other", factor="G", block_size=100),
    ]
    blocks = soi_blocks(Workload(name="w", layers=layers), 256, widths=widths)
    sizes = {}
    for block in blocks:
        sizes.setdefault((block.layer_name, block.factor), []).append(block.size)
    assert sizes == {
        ("one", "A"): [601],
        ("one", "G"): [128, 129],
        ("other", "A"): [200, 200, 201],
        ("other", "G"): [85, 86, 86],
    }


@pytest.mark.parametrize(
    ("layer", "factor", "sides"), [("none", "A", "AG"), ("one", "G", "A"), ("fixed", "A", "AG")]
)
def test_widths_of_factors_that_are_not_there_are_refused(layer, factor, sides):
    layers = (
        LayerShape(name="one", kind=kinds.DENSE, in_features=6, out_features=5),
        LayerShape(
            name="fixed", kind=kinds.DENSE, in_features=6, out_features=5, preconditioned=False
        ),
    )
    width = FactorWidth(layer=layer, factor=factor, block_size=3)
    with pytest.raises(SettingsError, match=rf"soi.widths: no factor {factor} .*valid: A of one"):
        soi_blocks(Workload(name="w", layers=layers), 256, sides, widths=[width])


def test_a_width_that_is_named_twice_is_refused():
    width = {"layer": "one", "factor": "A", "block_size": 3}
    with pytest.raises(SettingsError, match=r"soi: widths names factor A of layer 'one' 2 times"):
        load(SoiSpec, {"widths": [width, width]}, "soi")


def test_layers_without_factors_get_no_blocks():
    layers = (
        LayerShape(
            name="fc", kind=kinds.DENSE, in_features=4, out_features=4, preconditioned=False
        ),
        LayerShape(
            name="norm",
            kind=kinds.NORMALIZATION,
            in_features=0,
            out_features=4,
            preconditioned=False,
        ),
    )
    assert soi_blocks(Workload(name="w", layers=layers), 256) == ()


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=40), st.integers(min_value=1, max_value=8)
)
def test_longest_first_stays_within_its_proven_bound(costs, chips):
    owner = longest_first(np.array(costs), chips)
    load = np.bincount(owner, costs, minlength=chips).max()
    best = max(sum(costs) / chips, max(costs))
    # Graham 1969: at most 4/3 - 1/(3m) of the optimum, which is at least `best`... and the
    # optimum is at most twice `best`, so this bounds the load without knowing it.
    assert load <= best + max(costs) * (1 - 1 / chips) + 1e-9
    if len(costs) <= chips:
        assert load == pytest.approx(max(costs))


def test_whole_layer_placement_of_vgg16_is_as_inefficient_as_published_code_makes_it():
    """The greedy placement of K-FAC libraries on VGG-16, cost n^3: 26 % of 4 workers, 6.5 % of 16
    (their code run on these widths).
    """
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    conv = [
        LayerShape(name=f"conv{n}", kind=kinds.CONV, in_features=9 * before, out_features=after)
        for n, (before, after) in enumerate(itertools.pairwise(channels))
    ]
    dense = [
        LayerShape(name=f"fc{n}", kind=kinds.DENSE, in_features=before, out_features=after)
        for n, (before, after) in enumerate([(25088, 4096), (4096, 4096), (4096, 1000)])
    ]
    workload = Workload(name="vgg16", layers=(*conv, *dense))
    whole = soi_blocks(workload, 10**6)
    cubes = np.array([float(b.size) ** 3 for b in whole])
    for chips, published in ((4, 0.26), (16, 0.065)):
        owner = block_owners(whole, cubes, chips, "layer")
        assert balance(cubes, owner, chips) == pytest.approx(published, abs=0.01)
    split = soi_blocks(workload, 1024)
    work = np.array([float(b.size) ** 3 for b in split])
    factors = [b.factor for b in split]
    # G blocks are solved before A blocks: spreading them together leaves chips waiting.
    together = balance(work, longest_first(work, 16), 16, factors)
    assert together < 0.8
    assert balance(work, block_owners(split, work, 16, "lpt"), 16, factors) > together + 0.1


def test_blocks_go_to_chips_that_still_hold_them():
    layers = tuple(
        LayerShape(name=f"fc{n}", kind=kinds.DENSE, in_features=width, out_features=8)
        for n, width in enumerate((399, 99, 99, 99))
    )
    blocks = soi_blocks(Workload(name="w", layers=layers), 512)
    wide = np.array([b.size > 200 for b in blocks])
    # The costs would put the wide block alone; the chips have arrays for it and nothing else.
    costs = np.where(wide, 1.0, 10.0)
    room = Room(
        needed=np.where(wide, 4, 1)[:, None].astype(np.int64), capacity=np.array([4]), chips=3
    )
    owner = np.array(block_owners(blocks, costs, 3, "capacity", (), room))
    taken = np.bincount(owner, room.needed[:, 0], 3)
    assert taken.max() <= 4
    ignoring = np.array(block_owners(blocks, costs, 3, "lpt"))
    assert np.bincount(ignoring, room.needed[:, 0], 3).max() > 4


def test_a_block_that_fits_nowhere_goes_to_the_least_loaded_chip():
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=299, out_features=300)
    blocks = soi_blocks(Workload(name="w", layers=(layer,)), 512)
    room = Room(needed=np.full((2, 1), 9), capacity=np.array([4]), chips=2)
    assert sorted(block_owners(blocks, np.ones(2), 2, "capacity", (), room)) == [0, 1]


def test_micro_batches_go_round_or_stay_together():
    assert micro_batch_owners(5, 2, "round_robin") == (0, 1, 0, 1, 0)
    assert micro_batch_owners(4, 2, "contiguous") == (0, 0, 1, 1)


def test_ring_all_reduce_is_the_textbook_formula():
    got = all_reduce(network(("ring", None), add=1e-10), 8, 8e6).time_s
    assert got == pytest.approx(2 * 7 * A + 2 * 8e6 * 7 / 8 / BANDWIDTH + 8e6 * 7 / 8 * 1e-10)


def test_halving_doubling_is_the_textbook_formula():
    got = all_reduce(network(("switch", None), algorithm="halving_doubling"), 16, 4e6).time_s
    assert got == pytest.approx(2 * 4 * A + 2 * 4e6 * 15 / 16 / BANDWIDTH)


def test_halving_doubling_folds_other_counts_to_a_power_of_two():
    eight = halving_doubling_all_reduce_s(8, 1e6, A, 1e-9)
    assert halving_doubling_all_reduce_s(9, 1e6, A, 1e-9) == pytest.approx(
        eight + 2 * A + 2 * 1e6 * 1e-9
    )


def test_torus_all_reduce_is_two_ring_phases():
    torus = all_reduce(network(("ring", 4), ("ring", None)), 16, 1e6).time_s
    scatter_and_gather = 2 * (3 * A + 1e6 * 3 / 4 / BANDWIDTH)
    inner = 2 * 3 * A + 2 * (1e6 / 4) * 3 / 4 / BANDWIDTH
    assert torus == pytest.approx(scatter_and_gather + inner)


def test_bytes_per_link_of_a_torus_add_up_over_both_phases():
    got = all_reduce(network(("ring", 4), ("ring", None)), 16, 1e6).link_bytes
    # A ring has two links per chip. Inner: scatter and gather of all; outer: all-reduce of 1/4.
    assert got[0] == pytest.approx(2 * 1e6 * 3 / 4 / 2)
    assert got[1] == pytest.approx(2 * (1e6 / 4) * 3 / 4 / 2)


@pytest.mark.parametrize(("collective", "sizes"), [(all_reduce, (1e9,)), (all_to_all, (1e9, 1e9))])
def test_one_chip_exchanges_for_free(collective, sizes):
    cost = collective(network(("ring", None)), 1, *sizes)
    assert (cost.time_s, cost.energy_j, cost.link_bytes) == (0.0, 0.0, {})


@pytest.mark.parametrize("chips", [2, 3, 4, 5, 8, 9])
def test_bytes_of_an_all_to_all_on_a_ring_cross_the_links_between_their_chips(chips):
    """Every chip has a byte for each chip, itself among them; the shorter way round is taken."""
    crossed = sum(
        min((there - here) % chips, (here - there) % chips)
        for here in range(chips)
        for there in range(chips)
    )
    cost = all_to_all(network(("ring", None)), chips, float(chips**2), float(chips))
    assert cost.energy_j == pytest.approx(crossed * 8 * 1e-12)
    assert cost.time_s == pytest.approx(chips // 2 * A + crossed / chips / BANDWIDTH)


def test_every_third_chip_of_a_ring_shares_its_links_with_the_others():
    """All chips send to the third next: what one sends crosses three links, and a link carries what
    three send.
    """
    sent = np.zeros(12)
    for here in range(12):
        for link in range(here, here + 3):
            sent[link % 12] += 1.0
    (found,) = group_dimensions(network(("ring", None)), 12, 4, 3)
    assert found.chips == 4
    # The bandwidth is that of both links of a chip.
    assert found.byte_s == pytest.approx(sent.max() / BANDWIDTH)
    assert found.byte_j == pytest.approx(3 * 8 * 1e-12)
    assert found.latency_s == pytest.approx(3 * A)


def test_groups_of_chips_fill_the_dimensions_that_they_reach():
    boards = network(("fully_connected", 8), ("switch", None))
    # Chips 0, 4, 8, ... of 48: two of each of six boards, over one of a chip's seven links.
    inner, outer = group_dimensions(boards, 48, 12, 4)
    assert (inner.chips, outer.chips) == (2, 6)
    assert inner.byte_s == pytest.approx(7 / BANDWIDTH)
    assert outer.byte_s == pytest.approx(1 / BANDWIDTH)
    # Chips 0 and 8 are on different boards, and 3, 6, 9, ... on no two boards in the same places.
    assert [item.number for item in group_dimensions(boards, 16, 2, 8)] == [1]
    assert [(item.number, item.chips) for item in group_dimensions(boards, 24, 8, 3)] == [(1, 8)]
    # Three of the eight chips of a board have two links to each other, of seven.
    (three,) = group_dimensions(boards, 16, 3)
    assert three.byte_s == pytest.approx(7 / 2 / BANDWIDTH)
    assert group_dimensions(boards, 24, 1, 24) == ()
    assert group_dimensions(boards, 48, 48) == dimensions_for(boards, 48)


def test_a_message_goes_over_one_of_the_links_that_share_a_chips_bandwidth():
    """Eight chips of a board that is fully connected have seven links each; a switch, one."""
    for kind, links in (("fully_connected", 7), ("switch", 1)):
        cost = send(network((kind, 8)), 8, 1e6)
        assert cost.time_s == pytest.approx(A + 1e6 * links / BANDWIDTH)
        assert cost.energy_j == pytest.approx(1e6 * 8 * 1e-12)


def test_even_pieces_make_a_plain_reduce_scatter():
    cost = reduce_to_owners(network(("ring", None)), 4, 4e6, 1e6)
    assert cost.time_s == pytest.approx(3 * A + 4e6 * 3 / 4 / BANDWIDTH)
    assert cost.energy_j == pytest.approx(4e6 * 3 / 4 * 4 * 8 * 1e-12)


def test_the_largest_piece_bounds_an_uneven_reduction():
    alone = reduce_to_owners(network(("ring", None)), 4, 4e6, 4e6).time_s
    assert alone == pytest.approx(3 * A + 4e6 / BANDWIDTH)
    gathered = gather_from_owners(network(("ring", None)), 4, 4e6, 4e6).time_s
    assert gathered == pytest.approx(alone)


def test_fewer_chips_than_a_dimension_has_use_part_of_it():
    assert all_reduce(network(("ring", 16), ("ring", None)), 4, 1e6).time_s == pytest.approx(
        all_reduce(network(("ring", None)), 4, 1e6).time_s
    )


def test_a_network_without_room_is_refused():
    with pytest.raises(SettingsError, match="places for 8 chips, 16 are needed"):
        all_reduce(network(("ring", 8)), 16, 1.0)


def test_micro_batches_go_to_unequal_owners_by_who_is_done_first():
    # Owner 1 is three times as fast: of four micro-batches it takes three.
    assert micro_batch_owners(4, 2, "round_robin", (1.0, 3.0)) == (1, 1, 0, 1)
    assert micro_batch_owners(3, 3, "round_robin", (1.0, 1.0, 1.0)) == (0, 1, 2)


def test_a_slow_chip_gets_less_of_the_inversions():
    owner = longest_first(np.ones(8), 2, (1.0, 3.0))
    assert np.bincount(owner).tolist() == [2, 6]


@pytest.mark.parametrize("roomy", [False, True])
def test_chips_of_unequal_speeds_are_done_nearly_as_early_as_with_the_best_owners(roomy):
    """Gonzalez, Ibarra and Sahni 1977: on chips of any speeds, the longest first, each to the chip
    that is done with it first, ends before twice the least time. Least loaded chips do not: an idle
    chip of a tenth of the speed would get the second job, and take five times as long.
    """
    random = np.random.default_rng(0)
    for _ in range(20):
        costs, speeds = random.uniform(1, 3, 6), (1.0, 0.1, float(random.uniform(0.1, 1)))
        room = Room(np.ones((6, 1), np.int64), np.array([6]), 3) if roomy else None
        owner = longest_first(costs, 3, speeds, room=room)
        ends = np.bincount(owner, costs, 3) / speeds
        every = itertools.product(range(3), repeat=6)
        least = min((np.bincount(who, costs, 3) / speeds).max() for who in every)
        assert ends.max() < 1.4 * least
