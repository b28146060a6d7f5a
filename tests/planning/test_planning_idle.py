"""Chips that are switched off where a step is better without them."""

import io
import itertools
import math
import pickle

import numpy as np
import pytest
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.planning.idle import MOST_PLANS, best_number
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.costing import chosen_workload, planned_step
from repast_dist.studies.figures import step_figures
from repast_dist.studies.scaling.page import scaling_page
from repast_dist.studies.scaling.points import scaling_point, scaling_points
from repast_dist.studies.variants import varied


def settings_of(model, chips, *more, idle="auto"):
    return load_settings(
        [
            "study=plan", "workload=model", f"model={model}", f"farm.chips={chips}",
            f"partition.idle_chips={idle}", *more,
        ]
    )  # fmt: skip


def step_of(model, chips, *more, idle="auto"):
    plan = planned_step(settings_of(model, chips, *more, idle=idle))
    return plan, summarise(plan)


@pytest.mark.parametrize(("model", "counts"), [("digits_mlp", (1, 3, 9)), ("digits_cnn", (4, 5))])
def test_more_chips_never_make_a_whole_step_slower_where_they_may_be_switched_off(model, counts):
    """With all exchanges. Without that, one chip more than there are micro-batches costs time."""
    seconds = [step_of(model, chips)[1].step_s for chips in counts]
    for chips, (before, after) in zip(counts[1:], itertools.pairwise(seconds), strict=True):
        assert after <= before * 1.01, chips


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "micro_batch"),
    [
        ("digits_mlp", 16),
        ("digits_cnn", 1),
        ("digits_autoencoder", 16),
        ("digits_transformer", 1),
    ],
)
def test_of_1_to_64_chips_no_more_are_slower_and_the_best_work(model, micro_batch):
    small = f"train.micro_batch_size={micro_batch}"
    plans = [step_of(model, chips, small, idle="none") for chips in range(1, 65)]
    goals = {plan.work.chips: (step.step_s, step.energy_j) for plan, step in plans}
    micro_batches = plans[0][0].work.micro_batches
    for objective in (0, 1):
        found = [
            goals[best_number(lambda n: goals[n][objective], chips, micro_batches)][objective]  # noqa: B023
            for chips in goals
        ]
        for chips, goal in enumerate(found, 1):
            assert goal <= 1.01 * min(found[:chips]), (objective, chips)
            assert goal <= 1.01 * min(goals[n][objective] for n in range(1, chips + 1))


@pytest.mark.parametrize("micro_batches", [1, 5, 8, 48, 256])
def test_ten_plans_find_the_best_number_of_chips(micro_batches):
    """Computing that is shared by micro-batches, solves shared by all chips, and exchanges that
    take longer with every chip and with every doubling of them, of any sizes.
    """
    random = np.random.default_rng(3)
    missed = []
    for machine in [*range(1, 70), 1000, 10_000]:
        pass_s, solve_s, link_s = 10.0 ** random.uniform(-2, 2, 3)

        def step_s(chips, pass_s=pass_s, solve_s=solve_s, link_s=link_s):
            each = -(-micro_batches // chips)
            exchange_s = link_s * (chips + 30 * np.log2(chips))
            return 30 * pass_s * each + 1000 * solve_s / chips + exchange_s

        tried = []
        found = best_number(
            lambda chips, tried=tried, step_s=step_s: tried.append(chips) or step_s(chips),
            machine, micro_batches,
        )  # fmt: skip
        assert len(tried) == len(set(tried)) <= MOST_PLANS
        assert max(tried) == machine
        assert found == min(tried, key=step_s)
        missed.append(step_s(found) / step_s(np.arange(1, machine + 1)).min())
    assert max(missed) < 1.02
    assert np.mean(np.array(missed) < 1.01) > 0.95


def test_too_few_chips_are_passed_over_and_of_equals_the_fewest_work():
    assert best_number(lambda chips: math.inf if chips < 12 else 1.0, 64, 48) == 12
    assert best_number(lambda chips: 0.0, 64, 48) == 1


def test_no_more_than_ten_numbers_are_tried_whatever_they_give():
    random, most = np.random.default_rng(4), 0
    for machine in (3, 64, 1000, 10_000):
        for micro_batches in (1, 17, 256):
            tried = []
            best_number(
                lambda chips, tried=tried: tried.append(chips) or random.random(),
                machine, micro_batches,
            )  # fmt: skip
            most = max(most, len(tried))
    assert most == MOST_PLANS


@pytest.mark.slow
def test_no_number_of_chips_is_faster_than_the_one_that_is_found():
    found, step = step_of("digits_cnn", 12)
    alone = [step_of("digits_cnn", chips, idle="none")[1].step_s for chips in range(1, 13)]
    assert step.step_s == min(alone)
    assert found.work.chips == 1 + int(np.argmin(alone)) < 12
    assert found.work.machine_chips == 12
    assert alone[-1] > 1.01 * step.step_s


def test_chips_that_are_switched_off_take_no_power_and_all_of_their_area():
    plan, step = step_of("digits_cnn", 12)
    fewer, alone = step_of("digits_cnn", plan.work.chips, idle="none")
    assert step.energy_j == alone.energy_j
    assert step.static_energy_j == alone.static_energy_j
    areas = [step_figures(p, s)["area_m2"] for p, s in ((plan, step), (fewer, alone))]
    assert areas[0] == pytest.approx(areas[1] * 12 / plan.work.chips)


@pytest.mark.slow
def test_energy_as_objective_switches_off_what_costs_energy():
    plan, step = step_of("digits_cnn", 4, "partition.objective=energy")
    every = [
        step_of("digits_cnn", chips, "partition.objective=energy", idle="none")[1].energy_j
        for chips in range(1, 5)
    ]
    assert step.energy_j == min(every)
    assert plan.work.idle > 0


def test_a_plan_is_sent_without_what_was_computed_of_it():
    plan, step = step_of("digits_mlp", 12)
    sent = pickle.dumps(plan)
    assert len(sent) < 100_000
    assert summarise(pickle.loads(sent)).step_s == step.step_s


REFUSED = {
    "chips that differ": (
        ("study=train", "farm.chip_overrides={0: {speed: 0.5}}"),
        "partition.idle_chips=auto with farm.chip_overrides: chips that differ might be switched "
        "off; valid: none",
    ),
    "pipelines": (
        ("study=plan", "partition=pipeline"),
        "partition: idle_chips=auto with layers=auto: how many chips hold the network follows from "
        "what divides their number; valid: idle_chips=none, or layers=replicate",
    ),
    "frontier": (
        ("study=frontier",),
        "partition.idle_chips=auto: chips of equal area are compared, which all work; valid: none",
    ),
    "headline": (
        ("study=headline",),
        "partition.idle_chips=auto: machines of equal power and area are compared, whose chips all "
        "work; valid: none",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def answered(*overrides):
    return run_study(load_settings(overrides), Console(file=io.StringIO()))


@pytest.mark.parametrize("case", REFUSED)
def test_where_all_chips_have_to_work_it_is_refused_in_a_line(case, tmp_path):
    overrides, message = REFUSED[case]
    with pytest.raises(SettingsError) as caught:
        answered(*overrides, "partition.idle_chips=auto", f"run_root={tmp_path}")
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


def test_a_variant_of_a_frontier_with_idle_chips_is_refused():
    settings = load_settings(["study=frontier"])
    with pytest.raises(SettingsError, match="not read by study=frontier: chips of equal area"):
        varied(settings, {"partition.idle_chips": "auto"}, "study.tuning")


@pytest.mark.slow
def test_scaling_says_how_many_chips_work():
    settings = settings_of("digits_cnn", 1)
    points = scaling_points([chosen_workload(settings)], ["strong"], [1, 12], 128, 16)
    records = [scaling_point(settings.machine, point) for point in points]
    page = scaling_page(settings.machine, records, [chosen_workload(settings)])
    working = page.tables["points"]["working_chips"].to_pylist()
    assert working == [1, step_of("digits_cnn", 12)[0].work.chips]
    line = f"only so many chips work: {working[1]} of 12 (digits_cnn, strong)"
    assert any(line in note.text for note in page.notes)
    plain = settings_of("digits_cnn", 1, idle="none").machine
    records = [scaling_point(plain, point) for point in points]
    page = scaling_page(plain, records, [chosen_workload(settings)])
    assert "working_chips" not in page.tables["points"].column_names
    assert not any("idle_chips" in note.text for note in page.notes)
