"""The study of the frontier: equal tuning on chips of equal area, and verdicts by figures."""

import hashlib
import io
import json
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.files import read_json
from repast_dist.ground.spec import to_dict
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.costing import planned_step
from repast_dist.studies.frontier.cases import Cases, inverts_on_arrays
from repast_dist.studies.frontier.claims import claim_rows
from repast_dist.studies.frontier.large import published_rows
from repast_dist.studies.frontier.tables import (
    Run,
    best_points,
    change_rows,
    curve_rows,
    part_rows,
    rival_rows,
    target_rows,
)
from repast_dist.studies.frontier.training import SEGMENTS, frontier_point
from repast_dist.studies.settings import changed, training_job
from repast_dist.trace.schema import PHASES

QUICK = ("study=frontier_quick", "farm.backend=inprocess")
SMALL = (
    *QUICK, "~study.tasks.autoencoder", "~study.tasks.letters", "~study.tasks.residual_cnn",
    "~study.tasks.language_model", "study.seeds=2", "study.published=[]",
)  # fmt: skip


SECOND = ("kfac", "foof", "newton_muon")


def pretended(data, job):
    """Return a run that depends on the optimizer, its rate and the seed, without training."""
    del data
    share = int(hashlib.sha256(json.dumps(to_dict(job)).encode()).hexdigest()[:6], 16) / 2**24
    fall = 0.5 if job.optimizer.second_order else 0.9
    joules = {phase: [0.0] * 20 for phase in PHASES} | {
        "forward": [2.0] * 20, "inversion": [0.1 if job.machine.policy.inversion.name == "single"
                                             else 1.0] * 20,
    }  # fmt: skip
    return {
        "loss": [3.0 * fall**step * (1 + 0.01 * share) for step in range(20)],
        "time_s": [1.0] * 20, "cell_writes": [5] * 20, "phases_j": joules, "accuracy": 0.5,
        "segments_s": {segment: [1.0 / len(SEGMENTS)] * 20 for segment in SEGMENTS},
        "test_loss": 1.0, "diverged": None, "solves": {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("frontier")
    with mock.patch("repast_dist.studies.frontier.answer.frontier_point", pretended):
        return asked([*SMALL, f"run_root={root}"])


def asked(overrides):
    return run_study(load_settings(overrides), Console(file=io.StringIO()))


def rows(folder, name):
    return pq.read_table(folder / "tables" / f"{name}.parquet").to_pylist()


def run_of(optimizer, order, chip, seed, loss, *, joules=1.0, inverts=False, task="toy"):
    count = len(loss)
    labels = {
        "task": task, "optimizer": optimizer, "order": order, "chip": chip, "inverts": inverts,
        "seed": seed, "tuned": "as preset",
    }  # fmt: skip
    phases = {phase: [0.0] * count for phase in PHASES}
    phases |= {"forward": [0.75 * joules] * count, "inversion": [0.25 * joules] * count}
    # Every second step forms factors.
    phases["soi"] = [0.0 if order == "first" or step % 2 else 1e-12 for step in range(count)]
    segments = {segment: [0.0] * count for segment in SEGMENTS}
    segments["compute"] = [0.9 if joules else 0.5 for joules in phases["soi"]]
    segments["solve A"] = [0.2 if order == "second" else 0.0] * count
    record = {
        "segments_s": segments,
        "loss": list(loss), "time_s": [2.0] * count, "cell_writes": [3] * count,
        "phases_j": phases, "accuracy": 1.0, "test_loss": 0.0, "diverged": None, "solves": {},
    }  # fmt: skip
    return Run(labels, {}, record, window=2)


def test_chips_have_the_area_of_the_settings_own_one_or_a_tile_less():
    settings = load_settings([*QUICK])
    for name, own in Cases(settings.study, settings).chips.items():
        more = changed(own, {"chip.tiles": own.chip.tiles + 1})
        assert own.hardware.area_m2 <= settings.hardware.area_m2 * (1 + 1e-12), name
        assert more.hardware.area_m2 > settings.hardware.area_m2, name
        assert inverts_on_arrays(own) == (own.chip.inv_arrays > 0), name


def test_every_optimizer_is_tuned_with_as_many_settings_on_one_chip_for_all(folder):
    counts = {}
    for row in rows(folder, "tuning"):
        key = row["task"], row["optimizer"], row["chip"]
        counts[key] = counts.get(key, 0) + 1
    assert set(counts.values()) == {2}
    first = {key for key in counts if key[1] in ("sgd", "adamw", "muon")}
    assert {key[2] for key in first} == {"digital"}
    assert len(first) == 3
    second = {key for key in counts if key not in first}
    assert second == {("classifier", name, "one_settling") for name in SECOND}
    trained = {(row["optimizer"], row["chip"]) for row in rows(folder, "targets")}
    assert {pair for pair in trained if pair[0] in SECOND} == {
        (name, chip) for name in SECOND for chip in ("one_settling", "composed", "digital")
    }
    tuned = {(row["optimizer"], row["tuned"]) for row in rows(folder, "targets")}
    assert len(tuned) == len({name for name, _ in tuned})


def test_without_a_chip_for_tuning_optimizers_that_solve_are_tuned_on_all():
    settings = load_settings([*SMALL, "study.tuned_on=null"])
    tuned = Cases(settings.study, settings).tuning("classifier")
    pairs = {(case.labels["optimizer"], case.labels["chip"]) for case in tuned}
    assert len(pairs) == 3 + 3 * 3
    assert len(tuned) == 2 * len(pairs)


def test_tuning_has_a_seed_that_is_not_reported_and_serves_all_chips():
    settings = load_settings([*SMALL])
    cases = Cases(settings.study, settings)
    tuned = cases.tuning("classifier")
    assert {case.labels["seed"] for case in tuned} == {2}
    best = {(case.labels["optimizer"], case.labels["chip"]): {} for case in tuned}
    best["kfac", "one_settling"] = {"optimizer.damping": 0.05}
    reported = cases.reported("classifier", best)
    kfac = [case for case in reported if case.labels["optimizer"] == "kfac"]
    assert [case.settings.seed for case in kfac] == [0, 1] * 3
    assert {case.settings.optimizer.damping for case in kfac} == {0.05}
    named = {case.labels["chip"]: case.settings.inversion.name for case in kfac}
    assert named == {"one_settling": "single", "composed": "fcg", "digital": "cholesky"}


def test_everything_that_is_trained_is_analog():
    settings = load_settings([*QUICK, "study.points=1"])
    cases = Cases(settings.study, settings)
    for task in settings.study.tasks:
        for case in cases.tuning(task):
            engine = case.settings.engine
            assert set(to_dict(engine).values()) <= {"analog", 16}
            assert case.settings.device.inv_cell.programming_sigma == 0.01


def test_the_best_of_tuning_is_the_quickest_to_the_best_first_order_loss():
    slow = run_of("kfac", "second", "a", 0, [4, 3, 2, 1, 0.1, 0.1])
    fast = run_of("kfac", "second", "a", 0, [4, 1, 1, 1, 1, 1])
    slow.changes["rate"], fast.changes["rate"] = "slow", "fast"
    first = run_of("sgd", "first", "a", 0, [4, 3, 2, 1, 1, 1])
    worse = run_of("sgd", "first", "a", 0, [4, 3, 3, 3, 3, 3])
    best = best_points([slow, fast, worse, first])
    assert best["kfac", "a"] == {"rate": "fast"}
    assert best["sgd", "a"] is first.changes


def test_what_a_target_costs_is_counted_to_the_step_that_reaches_it():
    runs = [run_of("sgd", "first", "plain", seed, [4, 3, 2, 1, 1]) for seed in (0, 1)]
    runs += [
        run_of("kfac", "second", "arrays", 0, [4, 1, 1, 1, 1], joules=3.0, inverts=True),
        run_of("kfac", "second", "arrays", 1, [4, 2, 1, 1, 1], joules=3.0, inverts=True),
        run_of("slow", "second", "arrays", 0, [4, 1, 1, 1, 1], inverts=True),
        run_of("slow", "second", "arrays", 1, [4, 4, 4, 3, 3], inverts=True),
    ]
    found = {row["optimizer"]: row for row in target_rows(runs, {"plain": 0.1, "arrays": 0.2})}
    assert {row["target"] for row in found.values()} == {1.0}
    assert {row["rival"] for row in found.values()} == {"sgd"}
    kfac = found["kfac"]
    assert (kfac["steps"], kfac["time_s"]) == (3.5, 7.0)
    assert kfac["energy_j"] == pytest.approx(3.0 * 3.5)
    assert kfac["dynamic_j"] == pytest.approx(3.0 * 3.5 - 0.2 * 7.0)
    assert kfac["of_steps"] == kfac["of_time"] == pytest.approx(3.5 / 5)
    assert kfac["of_energy"] == pytest.approx(10.5 / 5)
    assert kfac["of_dynamic"] == pytest.approx((10.5 - 1.4) / (5 - 0.1 * 10))
    assert kfac["inversion_j_of_a_step"] == pytest.approx(0.75)
    assert found["slow"]["of_time"] is None
    assert found["slow"]["seeds_at_target"] == 1
    (changes,) = [row for row in change_rows(runs, list(found.values()), 0.5, 1.0)
                  if row["optimizer"] == "kfac"]  # fmt: skip
    assert changes["time_a_step_may_take"] == pytest.approx(0.5 / 0.7)
    assert changes["time_it_takes"] == 1.0
    assert changes["energy_it_takes"] == pytest.approx(3.0)
    assert changes["energy_without_inversion"] == pytest.approx(0.75 * 2.1)
    assert changes["energy_without_writing"] == pytest.approx(2.1)
    assert changes["time_without_solving"] == pytest.approx(0.7 * (2 - 0.2) / 2)
    # Of four and of three steps two form factors.
    assert changes["time_without_forming"] == pytest.approx(0.7 * (7 - 2 * 0.4) / 7)
    parts = {row["part"]: row for row in part_rows(runs) if row["optimizer"] == "kfac"}
    assert set(parts) == {"compute", "solve A"}
    assert parts["solve A"]["part_s"] == pytest.approx(0.2)
    assert parts["compute"]["part_s"] == pytest.approx((3 * 0.9 + 2 * 0.5) / 5)
    assert parts["compute"]["of_factors_s"] == pytest.approx(3 * 0.4 / 5)


def test_every_first_order_optimizer_is_a_rival_with_its_own_loss():
    runs = [
        run_of("sgd", "first", "plain", 0, [4, 3, 2, 1, 1]),
        run_of("adamw", "first", "plain", 0, [4, 3, 3, 3, 3], joules=2.0),
        run_of("kfac", "second", "arrays", 0, [4, 2, 2, 1, 1], joules=3.0, inverts=True),
    ]
    found = {row["rival"]: row for row in rival_rows(runs, {"plain": 0.1, "arrays": 0.0})}
    assert set(found) == {"sgd", "adamw"}
    assert (found["sgd"]["target"], found["adamw"]["target"]) == (1.0, 3.0)
    assert found["sgd"]["of_steps"] == 1.0
    assert found["adamw"]["of_steps"] == found["adamw"]["of_time"] == pytest.approx(2 / 5)
    assert found["adamw"]["of_energy"] == pytest.approx(6 / 10)
    assert found["adamw"]["of_dynamic"] == pytest.approx(6 / (10 - 1))


def test_a_run_that_broke_off_reaches_no_target():
    broken = run_of("kfac", "second", "arrays", 0, [4, 0.1, 0.1], inverts=True)
    broken.record["diverged"] = "nan"
    first = run_of("sgd", "first", "plain", 0, [4, 3, 2])
    found = target_rows([first, broken], {"plain": 0.0, "arrays": 0.0})[1]
    assert (found["failed"], found["steps"], found["final_loss"]) == (1, None, 4.0)
    assert curve_rows([broken]) == []


def test_verdicts_follow_from_the_figures():
    study = load_settings([*QUICK]).study
    chips = {"one_settling": (0.2, 1.0), "composed": (1.4, 1.1), "digital": (0.3, 1.2)}
    runs = [run_of("sgd", "first", "digital", 0, [4, 3, 2, 1, 1])]
    for name, (joules, late) in chips.items():
        loss = [4, 1, 1, 1, 1] if late < 1.15 else [4, 4, 1, 1, 1]
        inverts = name != "digital"
        runs.append(run_of("kfac", "second", name, 0, loss, joules=joules, inverts=inverts))
    rows_of = target_rows(runs, dict.fromkeys(chips, 0.0))
    found = {row["claim"]: row["verdict"] for row in claim_rows(study, rows_of)}
    reaches = "reaches sgd's final loss in at most 0.5 of its time and 1 of its energy"
    assert found[f"toy: kfac, one_settling, {reaches}"] == "does not hold"  # three steps of five
    sooner = changed(load_settings([*QUICK]), {"study.time_claimed": 0.7}).study
    again = {row["claim"]: row["verdict"] for row in claim_rows(sooner, rows_of)}
    assert again[f"toy: kfac, one_settling, {reaches.replace('0.5', '0.7')}"] == "holds"
    assert again[f"toy: kfac, composed, {reaches.replace('0.5', '0.7')}"] == "holds"
    area = "to the target with inverting arrays than without, on chips of equal area"
    assert found[f"toy: kfac takes less time {area}"] == "holds"
    assert found[f"toy: kfac takes less energy {area}"] == "holds"
    (saving,) = [claim for claim in found if "inverts with 1/5" in claim]
    assert found[saving] == "holds"


@pytest.mark.parametrize(("more", "verdict"), [(1.008, "holds"), (1.02, "does not hold")])
def test_losses_that_differ_by_less_than_one_percent_are_the_same(more, verdict):
    study = load_settings([*QUICK]).study
    runs = [
        run_of("sgd", "first", "digital", 0, [4, 3, 2, 2, 2]),
        run_of("kfac", "second", "composed", 0, [4, 1, 1, 1, 1], joules=5.0, inverts=True),
        run_of("kfac", "second", "one_settling", 0, [4, *[more] * 4], joules=0.5, inverts=True),
    ]
    rows_of = target_rows(runs, dict.fromkeys(("digital", "composed", "one_settling"), 0.0))
    found = {
        row["claim"]: row["verdict"] for row in claim_rows(study, [*rows_of, *_without(rows_of)])
    }
    (saving,) = [claim for claim in found if "inverts with 1/5" in claim]
    assert found[saving] == verdict


def _without(rows_of):
    """A chip that does not invert, which claims compare with."""
    return [row | {"chip": "digital", "inverts": False} for row in rows_of if row["inverts"]]


def test_the_page_has_all_tables_and_the_claims_of_every_chip_that_inverts(folder):
    claims = [row["claim"] for row in rows(folder, "claims")]
    for chip in ("one_settling", "composed"):
        assert any(claim.startswith(f"classifier: kfac, {chip}, reaches") for claim in claims)
    for name in (
        "best",
        "targets",
        "rivals",
        "changes",
        "parts",
        "chips",
        "sizes",
        "tuning",
        "curves",
    ):
        assert rows(folder, name)
    answer = read_json(folder / "answer.json")["answer"]
    assert "On 1 of 1 tasks" in answer
    assert answer.count("classifier (kfac, ") == 1
    assert "The best on the others" not in answer
    assert "Is an inverting array worth its silicon?" in (folder / "report.html").read_text()


def test_a_trained_point_costs_what_its_plan_says():
    settings = load_settings([*SMALL])
    cases = Cases(settings.study, settings)
    tuned = cases.tuning("classifier")
    case = next(case for case in tuned if case.labels["optimizer"] == "adamw")
    own = changed(case.settings, {"train.max_steps": 3, "dataset.test_fraction": 0.03})
    record = frontier_point(own.dataset.load(), training_job(own))
    planned = summarise(planned_step(changed(own, {"workload": {"name": "model"}})))
    energy = np.sum(list(record["phases_j"].values()), axis=0)
    # The first step runs its micro-batch twice, to learn what ranges converters need.
    assert record["time_s"][0] > planned.step_s
    np.testing.assert_allclose(record["time_s"][1:], planned.step_s, rtol=1e-9)
    np.testing.assert_allclose(energy[1:], planned.energy_j, rtol=1e-9)
    static_w = own.hardware.costs.static_w
    assert static_w * planned.step_s == pytest.approx(planned.static_energy_j)
    assert len(record["loss"]) == len(record["cell_writes"]) == 3
    for segment in SEGMENTS:
        taken = planned.segment_s.get(segment, 0.0)
        np.testing.assert_allclose(record["segments_s"][segment][1:], taken, rtol=1e-9, atol=1e-15)
    assert record["diverged"] is None


def test_passing_the_layers_takes_what_is_planned_where_factors_are_formed():
    settings = load_settings([*SMALL])
    tuned = Cases(settings.study, settings).tuning("classifier")
    case = next(case for case in tuned if case.labels["optimizer"] == "kfac")
    values = {"train.max_steps": 3, "dataset.test_fraction": 0.03}
    own = changed(case.settings, values | {"soi.interval": 1, "soi.factor_interval": 1})
    record = frontier_point(own.dataset.load(), training_job(own))
    planned = summarise(planned_step(changed(own, {"workload": {"name": "model"}})))
    np.testing.assert_allclose(
        record["segments_s"]["compute"][1:], planned.segment_s["compute"], rtol=1e-9
    )


def test_chips_of_other_sizes_have_equal_areas_and_the_steps_that_were_needed(folder):
    """Their steps are planned, and those on chips of the study's size are the ones it trained."""
    sizes, chips = rows(folder, "sizes"), {row["chip"]: row for row in rows(folder, "chips")}
    needed = {
        f"{row['optimizer']}, {row['chip']}": row
        for row in rows(folder, "targets")
        if row["order"] == "second" and row["of_steps"] is not None
    }
    settings = load_settings([*SMALL])
    cases = Cases(settings.study, settings)
    assert len(sizes) == 2 * len(needed) > 0
    for row in sizes:
        mine = needed[row["run"]]
        assert row["of_steps"] == mine["of_steps"]
        assert row["of_time"] == pytest.approx(
            mine["of_steps"] * row["step_s"] / row["first_order_step_s"]
        )
        assert row["of_energy"] == pytest.approx(mine["of_steps"] * row["step_energy"])
        chip = chips[mine["chip"]]
        if row["tiles"] == chip["tiles"]:
            assert row["area_m2"] == chip["area_m2"]
    areas = sorted({row["area_m2"] for row in sizes})
    assert max(areas) / min(areas) > 2
    small = changed(cases.chips["one_settling"], {"chip.tiles": 6}).hardware.area_m2
    assert all(0.9 * small < area <= small for area in areas if area < 2 * small)


def test_published_trainings_are_priced_by_steps_and_their_number():
    entry = ("{network: lenet5, batch: 8, first_order: 90, second_order: 30, source: a paper,"
             " settings: {soi.interval: 7, soi.factor_interval: 7}}")  # fmt: skip
    settings = load_settings([*QUICK, f"study.published=[{entry}]", "study.published_settings={}"])
    priced = published_rows(settings.study, Cases(settings.study, settings))
    found = {row["chip"]: row for row in priced}
    assert set(found) == set(settings.study.chips)
    for row in found.values():
        assert row["of_time"] == pytest.approx(row["step_s"] / row["first_order_step_s"] / 3)
        assert row["of_energy"] == pytest.approx(row["step_energy"] / 3)
    assert found["one_settling"]["step_s"] != found["digital"]["step_s"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("study.first_order_chip=other", r"first_order_chip: no chip 'other'; valid: one_settling"),
        ("study.saving_over=other", r"saving_over: no chip 'other'"),
        ("study.tuned_on=other", r"tuned_on: no chip 'other'"),
        (
            "study.chips.composed={inversion.methd: fcg}",
            r"study\.chips\.composed: inversion\.methd",
        ),
        ("study.chips.digital={inversion.method: fcg}", r"valid: some chips that invert"),
        (
            "study.optimizers.kfac.search={optimizer.dmping: [0.1]}",
            r"kfac\.search\.optimizer\.dmping",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(override, said, tmp_path):
    with pytest.raises(SettingsError, match=said):
        asked([*SMALL, override, f"run_root={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_optimizers_of_one_order_alone_are_refused(tmp_path):
    alone = [*SMALL, *(f"~study.optimizers.{name}" for name in SECOND), f"run_root={tmp_path}"]
    with pytest.raises(SettingsError, match="all are of first order; valid: some of each"):
        asked(alone)
