"""The study of the demonstration: equal tuning, epochs to an accuracy, and validation by them."""

import io
import json
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.files import read_json
from repast_dist.planning.blocks import soi_blocks
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.convergence.training import convergence_point
from repast_dist.studies.costing import chosen_workload
from repast_dist.studies.demonstration.cases import Cases
from repast_dist.studies.demonstration.stored import CURVES, shipped, stored
from repast_dist.studies.demonstration.tables import (
    Run,
    best_points,
    epochs_to,
    median_epochs,
    median_saving,
    target_rows,
)
from repast_dist.studies.kinds.validate import Anchor
from repast_dist.studies.settings import changed
from repast_dist.studies.validate import epochs_saved

SMALL = (
    "study=demonstration", "farm.backend=inprocess", "study.seeds=2", "study.target=0.7",
    "study.other_targets=[0.5]",
)  # fmt: skip
RATES = {"sgd": 0.2, "adam": 0.01, "kfac": 0.15}
"""Those with which a pretended training learns fastest."""
PACE = {"sgd": 0.1, "adam": 0.05, "kfac": 0.2}
"""What it learns in an epoch with them, or half as much."""


def pretended(data, job):
    """Return a run whose accuracy grows evenly, at a pace of the optimizer and its rate."""
    del data
    method = job.optimizer.method
    pace = PACE[method] * (1.0 if job.optimizer.learning_rate == RATES[method] else 0.5)
    pace *= 1.0 + 0.1 * job.seed
    accuracy = [min(pace * (epoch + 1), 1.0) for epoch in range(20)]
    epochs = [
        {"epoch": number, "step": 1, "train_loss": 1.0, "test_loss": 1.0, "test_accuracy": value,
         "time_s": 1.0, "energy_j": 1.0}
        for number, value in enumerate(accuracy, 1)
    ]  # fmt: skip
    return {"epochs": epochs, "first_loss": 3.0, "steps": 20, "diverged": None, "solves": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("demonstration")
    with mock.patch("repast_dist.studies.demonstration.answer.convergence_point", pretended):
        return asked([*SMALL, f"run_root={root}", "dataset.train_samples=26"])


def asked(overrides):
    return run_study(load_settings(overrides), Console(file=io.StringIO()))


def rows(folder, name):
    return pq.read_table(folder / "tables" / f"{name}.parquet").to_pylist()


def test_epochs_are_counted_between_tests_to_the_first_that_reaches_the_target():
    accuracies = np.array([0.4, 0.5, 0.45, 0.7])
    assert epochs_to(accuracies, 0.2) == 0.5
    assert epochs_to(accuracies, 0.4) == 1.0
    assert epochs_to(accuracies, 0.475) == pytest.approx(1.75)
    assert epochs_to(accuracies, 0.6) == pytest.approx(3.6)
    assert epochs_to(accuracies, 0.71) is None
    assert epochs_to(np.zeros(0), 0.1) is None


def test_every_optimizer_is_tuned_with_as_many_settings_by_seeds_that_are_not_reported(folder):
    tuning = rows(folder, "tuning")
    counts = {name: sum(row["optimizer"] == name for row in tuning) for name in RATES}
    assert counts == {"sgd": 8, "adam": 8, "kfac": 8}
    assert {row["seed"] for row in tuning} == {2, 3}
    chosen = {row["optimizer"]: row["searched"] for row in tuning if row["chosen"]}
    assert all(f"learning_rate {rate}" in chosen[name] for name, rate in RATES.items())


def test_savings_are_those_of_median_epochs(folder):
    """K-FAC is at 0.7 after 3.5 and 3.5 / 1.1 epochs, SGD in twice, Adam in four times as many."""
    savings = {
        (row["circuit"], row["rival"], row["target"]): row for row in rows(folder, "savings")
    }
    beside = savings["refined", "sgd", 0.7]
    assert beside["saving"] == pytest.approx(0.5)
    assert (beside["lowest"], beside["highest"]) == pytest.approx((0.5, 0.5))
    assert beside["published"] == 0.26
    assert savings["refined", "adam", 0.7]["saving"] == pytest.approx(0.75)
    assert savings["refined", "adam", 0.7]["published"] == 0.61
    assert savings["exact", "sgd", 0.7]["published"] is None
    targets = {(row["optimizer"], row["circuit"], row["target"]): row
               for row in rows(folder, "targets")}  # fmt: skip
    of_sgd = targets["sgd", "none", 0.7]
    assert of_sgd["epochs"] == pytest.approx((7.0 + 7.0 / 1.1) / 2)
    assert (of_sgd["lowest"], of_sgd["highest"]) == pytest.approx((7.0 / 1.1, 7.0))
    answer = read_json(folder / "answer.json")
    assert {item["name"]: item["value"] for item in answer["figures"]} == pytest.approx(
        {"epochs saved against sgd": 0.5, "epochs saved against adam": 0.75}
    )


def test_a_run_leaves_curves_that_say_the_same(folder):
    left = left_of(folder)
    assert left.saving("sgd") == pytest.approx(0.5)
    assert left.saving("adam") == pytest.approx(0.75)
    assert left.data_name == "drawn letters"
    with pytest.raises(SettingsError, match="no epochs of 'muon' are stored; valid: sgd, adam"):
        left.saving("muon")


def test_a_target_that_seeds_miss_saves_nothing(tmp_path):
    slow = mock.patch.dict(PACE, {"sgd": 0.01})
    with slow, mock.patch("repast_dist.studies.demonstration.answer.convergence_point", pretended):
        never = asked([*SMALL, f"run_root={tmp_path}", "dataset.train_samples=26"])
    savings = {(row["rival"], row["saving"]) for row in rows(never, "savings")}
    assert ("sgd", None) in savings
    assert all(saving is None for rival, saving in savings if rival == "sgd")
    assert "of sgd most seeds miss the target" in read_json(never / "answer.json")["answer"]
    with pytest.raises(SettingsError, match="most stored runs of kfac or sgd miss the target"):
        left_of(never).saving("sgd")


def left_of(folder):
    return stored(json.loads((folder / CURVES).read_text()))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study.circuit=other", "circuit: no 'other'; valid: refined"),
        ("study.optimizer=other", "optimizer: no 'other'; valid: sgd, adam, kfac"),
        ("study.optimizers.sgd.search={optimizer.learning_rate: [0.1]}", "as many of each"),
        ("study.published=[{rival: x, value: 0.1, source: y}]", "published: no 'x'; valid: sgd"),
    ],
)
def test_what_cannot_be_compared_is_refused(override, message):
    with pytest.raises(SettingsError, match=message):
        load_settings([*SMALL, override])


def test_an_optimizer_that_solves_nothing_is_not_put_beside_the_demonstration():
    settings = load_settings([*SMALL, "study.optimizer=sgd"])
    with pytest.raises(SettingsError, match=r"sgd solves with nothing; valid: kfac"):
        Cases(settings.study, settings)


def test_blocks_are_composed_of_two_arrays_of_8_rows_as_in_the_published_circuit():
    settings = load_settings(["experiment=letters"])
    assert (settings.chip.inv.size, settings.device.inv_cell.bits) == (8, 3)
    blocks = soi_blocks(chosen_workload(changed(settings, {"workload.name": "model"})),
                        settings.soi.block_size)  # fmt: skip
    scheme = settings.inversion
    assert 8 < max(block.size for block in blocks) <= 16
    for block in blocks:
        assert scheme.pieces(block.size, settings.chip.inv.size) == (2 if block.size > 8 else 1)


@pytest.fixture(scope="module")
def began():
    """Return the first epoch of the shipped runs of SGD and of K-FAC on arrays, trained anew."""
    curves = shipped()
    settings = load_settings([*SMALL, "train.epochs=1"])
    cases = Cases(settings.study, settings)
    best = {run.group[0]: run.changes for run in curves.runs}
    data = settings.dataset.load()
    wanted = {("sgd", "none", 0), (curves.optimizer, curves.circuit, 0)}
    return {
        key: convergence_point(data, case.job)["epochs"][0]
        for case in cases.reported(best)
        for key in [(case.labels["optimizer"], case.labels["circuit"], case.labels["seed"])]
        if key in wanted
    }


@pytest.mark.slow
def test_the_shipped_curves_begin_as_the_study_begins(began):
    """Elsewhere sums may be rounded otherwise, which analog-to-digital converters make visible."""
    curves = shipped()
    assert len(began) == 2
    for run in curves.runs:
        key = (*run.group, run.labels["seed"])
        if key in began:
            first = run.record["epochs"][0]
            assert began[key]["train_loss"] == pytest.approx(first["train_loss"], rel=2e-3)
            assert began[key]["test_accuracy"] == pytest.approx(first["test_accuracy"], abs=0.01)


def test_shipped_curves_are_of_the_study_as_it_is_preset():
    curves, study = shipped(), load_settings(["study=demonstration"]).study
    assert (curves.optimizer, curves.circuit) == (study.optimizer, study.circuit)
    assert curves.target == study.target
    groups = {run.group for run in curves.runs}
    assert groups == {("sgd", "none"), ("adam", "none"), *(("kfac", x) for x in study.circuits)}
    assert len(curves.runs) == study.seeds * len(groups)
    assert {run.labels["seed"] for run in curves.runs} == set(range(study.seeds))
    assert curves.data_name == "drawn letters"
    for run in curves.runs:
        searched = study.optimizers[run.group[0]].search
        assert all(value in searched[path] for path, value in run.changes.items())


def test_validation_puts_the_published_savings_beside_the_shipped_ones():
    study = load_settings(["study=validate"]).study
    anchors = [anchor for anchor in study.anchors if anchor.kind == "epochs saved"]
    assert [(anchor.subject, anchor.value) for anchor in anchors] == [("sgd", 0.26), ("adam", 0.61)]
    for anchor in anchors:
        assert "2512.05342" in anchor.source
        assert anchor.tolerance is None
        assert epochs_saved(anchor) == shipped().saving(anchor.subject)
    with pytest.raises(SettingsError, match="no epochs of 'x'"):
        epochs_saved(Anchor(kind="epochs saved", subject="x", value=0.1, source="y"))


def test_a_seed_that_misses_the_target_counts_as_the_slowest():
    runs = [tried(1, 0, 0.2, 0.4), tried(1, 1, 0.2, 0.6), tried(1, 2, 0.5)]
    assert median_epochs(runs, 0.4) == pytest.approx(1.5)
    assert median_epochs(runs, 0.5) == pytest.approx(1.75)
    assert median_epochs(runs, 0.55) is None
    assert median_epochs(runs[1:], 0.55) is None
    rivals = [tried(2, seed, 0.0, 0.0, 0.0, 0.5) for seed in range(3)]
    assert median_saving(runs, rivals, 0.5) == pytest.approx(1.0 - 1.75 / 4.0)
    (sgd,) = target_rows(runs, [0.5])
    assert (sgd["lowest"], sgd["highest"], sgd["seeds_at_target"]) == (1.0, None, 2)


def test_a_seed_that_ends_no_epoch_leaves_the_others_their_accuracy():
    runs = [tried(1, 0, 0.2, 0.4), tried(1, 1)]
    (sgd,) = target_rows(runs, [0.3])
    assert (sgd["last_accuracy"], sgd["seeds_at_target"], sgd["seeds"]) == (0.4, 1, 2)
    assert target_rows([tried(1, 1)], [0.3])[0]["last_accuracy"] is None


def tried(rate, seed, *accuracies):
    labels = {"optimizer": "sgd", "circuit": "none", "seed": seed, "searched": f"rate {rate}"}
    epochs = [{"test_accuracy": accuracy} for accuracy in accuracies]
    return Run(labels, {"rate": rate}, {"epochs": epochs, "diverged": None})


def test_the_best_settings_miss_the_target_with_the_fewest_seeds_and_are_quickest_then():
    quick_once = [tried(3, 0, 0.6), tried(3, 1, 0.2, 0.3)]
    slow = [tried(2, 0, 0.2, 0.4, 0.6), tried(2, 1, 0.2, 0.6)]
    quicker = [tried(1, 0, 0.2, 0.4, 0.65), tried(1, 1, 0.6)]
    assert best_points([*quick_once, *slow], 0.5) == {"sgd": {"rate": 2}}
    assert best_points([*quick_once, *slow, *quicker], 0.5) == {"sgd": {"rate": 1}}
    assert best_points([*quick_once, *slow, *quicker], 0.9) == {"sgd": {"rate": 1}}
