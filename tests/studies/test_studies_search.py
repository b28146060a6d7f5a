"""Searches for the best design: known optima and fronts, constraints, stops, several processes."""

import io
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import spec, to_dict
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies import resume_study, run_study
from repast_dist.studies.costing import planned_step
from repast_dist.studies.kinds.search import Range
from repast_dist.studies.measure import MEASURES, Measure
from repast_dist.studies.measures.train import TrainMeasure
from repast_dist.studies.search.goals import Goals
from repast_dist.studies.search.journal import JOURNAL, Journal
from repast_dist.studies.search.proposals import Proposals
from repast_dist.studies.search.space import Space
from repast_dist.studies.settings import changed, in_one_process

pytest.importorskip("optuna")

QUIET = Console(file=io.StringIO())
STOP_AT: list[int] = []
"""Points after which measuring is interrupted, as Ctrl-C would."""


@MEASURES.register
@spec
class Analytic(Measure):
    """Functions of damping and learning rate whose optima are known."""

    kind: Literal["analytic"] = "analytic"
    reads: ClassVar[tuple[str, ...]] = ("optimizer",)

    def record(self, settings: Any) -> dict[str, Any]:
        if STOP_AT:
            STOP_AT[0] -= 1
            if STOP_AT[0] < 0:
                raise KeyboardInterrupt
        x, y = settings.optimizer.learning_rate, math.log10(settings.optimizer.damping)
        return {
            # The least is 0, at a rate of 0.3 and a damping of 0.01.
            "bowl": (x - 0.3) ** 2 + (y + 2.0) ** 2 / 10,
            "x": x,
            # No other is better in x and in this where the damping is 0.001: ZDT1 of two variables.
            "zdt": (1 + 3 * (y + 3.0)) * (1 - math.sqrt(x / (1 + 3 * (y + 3.0)))),
            "name": "text",
        }


RATE_AND_DAMPING = {
    "optimizer.learning_rate": {"low": 0.0001, "high": 1.0, "levels": 11},
    "optimizer.damping": {"low": 0.001, "high": 1.0, "log": True, "levels": 7},
}
BOWL = {"one.bowl": "lowest"}
ZDT = {"one.x": "lowest", "one.zdt": "lowest"}


def asked(tmp_path, **study):
    """Settings of a search over rate and damping."""
    (tmp_path / "my" / "study").mkdir(parents=True, exist_ok=True)
    whole = {
        "name": "search",
        "measures": {"one": {"kind": "analytic"}},
        "parameters": RATE_AND_DAMPING,
        "objectives": BOWL,
        "sampler": {"kind": "random"},
        "points": 40,
        **study,
    }
    (tmp_path / "my" / "study" / "mine.yaml").write_text(json.dumps(whole))
    overrides = ["study=mine", "farm.backend=inprocess", f"run_root={tmp_path}"]
    return load_settings(overrides, tmp_path / "my")


def points(folder):
    return pq.read_table(folder / "tables" / "points.parquet").to_pylist()


def journal(folder):
    return [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "reached"),
    [
        ({"kind": "grid"}, 1e-4),
        ({"kind": "random"}, 0.05),
        ({"kind": "tpe", "first": 10}, 0.01),
        ({"kind": "nsga2", "population": 10}, 0.03),
        ({"kind": "cmaes"}, 1e-3),
    ],
)
def test_samplers_come_near_a_known_optimum(tmp_path, sampler, reached):
    settings = asked(tmp_path, sampler=sampler, points=None if sampler["kind"] == "grid" else 80)
    folder = run_study(settings, QUIET)
    best = min(points(folder), key=lambda row: row["one.bowl"])
    assert best["one.bowl"] < reached
    assert best["optimizer.learning_rate"] == pytest.approx(0.3, abs=0.25)
    figures = {
        f["name"]: f["value"] for f in json.loads((folder / "answer.json").read_text())["figures"]
    }
    assert figures["one.bowl"] == best["one.bowl"]


@pytest.mark.slow
def test_a_grid_has_every_combination_once(tmp_path):
    folder = run_study(asked(tmp_path, sampler={"kind": "grid"}, points=None), QUIET)
    found = {(row["optimizer.learning_rate"], row["optimizer.damping"]) for row in points(folder)}
    rates = np.linspace(0.0001, 1.0, 11)
    dampings = np.logspace(-3, 0, 7)
    assert len(found) == 77
    for ours, theirs in zip(sorted(found), itertools.product(rates, dampings), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("tpe", 100), ("nsga2", 250)])
def test_two_objectives_give_the_known_front(tmp_path, kind, count):
    settings = asked(tmp_path, objectives=ZDT, sampler={"kind": kind}, points=count)
    folder = run_study(settings, QUIET)
    front = [row for row in points(folder) if row["state"] == "front"]
    # On the front of ZDT1, f2 = 1 - sqrt(f1).
    above = [row["one.zdt"] - (1 - math.sqrt(row["one.x"])) for row in front]
    assert min(above) >= -1e-12
    assert np.median(above) < 0.25
    assert len(front) >= 8
    xs = [row["one.x"] for row in front]
    assert min(xs) < 0.1
    assert max(xs) > 0.6


def test_the_front_is_what_brute_force_finds():
    random = np.random.default_rng(1)
    for dimensions in (1, 2, 3):
        values = random.integers(0, 8, (60, dimensions)).astype(float)
        names = [f"m.{k}" for k in range(dimensions)]
        records = [dict(zip(names, row, strict=True)) for row in values.tolist()]
        goals = Goals({name: "highest" for name in names}, {})
        beaten = [
            any(np.all(other >= row) and np.any(other > row) for other in values) for row in values
        ]
        wanted = {
            tuple(row)
            for row, is_beaten in zip(values.tolist(), beaten, strict=True)
            if not is_beaten
        }
        found = goals.front(records)
        assert {tuple(values[number].tolist()) for number in found} == wanted
        assert len(found) == len(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "tpe", "nsga2", "cmaes"])
def test_the_best_keeps_the_constraints(tmp_path, kind):
    # The optimum without it is at a rate of 0.3; with it, on its edge.
    limits = {"one.x": {"at_least": 0.5}}
    folder = run_study(
        asked(tmp_path, sampler={"kind": kind}, points=100, constraints=limits), QUIET
    )
    rows = points(folder)
    assert any(row["state"] == "breaks a constraint" for row in rows)
    assert all((row["one.x"] < 0.5) == (row["state"] == "breaks a constraint") for row in rows)
    designs = pq.read_table(folder / "tables" / "designs.parquet").to_pylist()[1:]
    assert all(row["one.x"] >= 0.5 for row in designs)
    assert designs[0]["one.bowl"] == min(r["one.bowl"] for r in rows if r["one.x"] >= 0.5)
    assert designs[0]["one.bowl"] < 0.15


@pytest.mark.parametrize(("least", "breaks"), [(0.5, True), (-5.0, False)])
def test_the_answer_says_if_the_design_beside_the_best_breaks_a_constraint(tmp_path, least, breaks):
    """The settings as they are have a learning rate below 0.5."""
    out = io.StringIO()
    limits = {"one.x": {"at_least": least}}
    run_study(asked(tmp_path, points=8, constraints=limits), Console(file=out, width=300))
    said = "The settings' own design does not keep the constraints: one.x" in out.getvalue()
    assert said is breaks


def test_constraints_that_nothing_keeps_are_said(tmp_path):
    out = io.StringIO()
    limits = {"one.x": {"at_least": 5.0}}
    run_study(asked(tmp_path, points=8, constraints=limits), Console(file=out, width=200))
    assert "No point keeps all constraints" in out.getvalue()
    assert "is nearest" in out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grid", "random", "tpe", "nsga2", "cmaes"])
def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, kind):
    sampler = {"kind": kind}
    sampler |= {"population": 6} if kind in ("nsga2", "cmaes") else {}
    sampler |= {"first": 5} if kind == "tpe" else {}
    settings = asked(tmp_path, sampler=sampler, points=30)
    whole = run_study(settings, QUIET)
    for stop in (1, 8, 16):
        STOP_AT[:] = [stop]
        with pytest.raises(KeyboardInterrupt):
            run_study(settings, QUIET)
        STOP_AT.clear()
        (stopped,) = [
            path for path in (tmp_path / "search").iterdir() if not (path / "answer.json").exists()
        ]
        lines = journal(stopped) if stop > 1 else []
        done = [e for e in lines if "told" in e and "same_as" not in e["record"]]
        # The first that is measured is the settings' own design.
        assert len(done) == max(0, stop - 1)
        # A process that is killed while it writes leaves part of a line.
        with (stopped / JOURNAL).open("a") as file:
            file.write('{"told": 3, "reco')
        resume_study(stopped, {}, QUIET)
        for ours, theirs in zip(points(stopped), points(whole), strict=True):
            assert ours | {"cpu_s": 0} == theirs | {"cpu_s": 0}


def proposals(settings, journal):
    space = Space.of(settings.study.parameters, settings, "study.parameters")
    goals = Goals(settings.study.objectives, settings.study.constraints)
    return Proposals(settings.study, space, goals, journal, settings.seed)


@pytest.mark.parametrize("kind", ["random", "tpe", "nsga2"])
def test_several_processes_share_a_journal_and_propose_each_point_once(tmp_path, kind):
    settings = asked(tmp_path, sampler={"kind": kind}, points=21)
    with Journal(tmp_path) as one, Journal(tmp_path) as two:
        assert not one.joined
        assert two.joined
        parts = [proposals(settings, one), proposals(settings, two)]
        coming = [part.coming() for part in parts]
        seen = []
        for turn in range(100):
            proposal = next(coming[turn % 2], None)
            if proposal is None:
                break
            seen.append(proposal.number)
            if turn % 3:
                parts[turn % 2].tell(proposal.number, {"one.bowl": float(turn), "one.x": 1.0})
        assert seen == list(range(21))
        for part in parts:
            part.look()
        assert parts[0].records == parts[1].records
        assert parts[0].seen == parts[1].seen
        states = [[t.state for t in part.history.get_trials()] for part in parts]
        assert states[0] == states[1]


def test_random_points_do_not_depend_on_what_was_found(tmp_path):
    settings = asked(tmp_path, points=12)
    found = []
    for told in (False, True):
        folder = tmp_path / str(told)
        folder.mkdir()
        with Journal(folder) as kept:
            part = proposals(settings, kept)
            for proposal in part.coming():
                if told:
                    part.tell(proposal.number, {"one.bowl": 1.0, "one.x": 1.0})
            found.append(part.seen)
    assert found[0] == found[1]


def test_another_seed_gives_other_points(tmp_path):
    settings = asked(tmp_path, points=3)
    first = points(run_study(settings, QUIET))
    second = points(run_study(changed(settings, {"seed": 1}), QUIET))
    assert [r["optimizer.damping"] for r in first] != [r["optimizer.damping"] for r in second]


DAMPING = "optimizer.damping"
WRONG = [
    ({"parameters": {"optimizer.dampin": [1.0]}}, r"parameters\.optimizer\.dampin: .*'damping'"),
    ({"parameters": {"nothing.at.all": [1]}}, r"study\.parameters\.nothing\.at\.all: .*no group"),
    ({"parameters": {DAMPING: [-1.0]}}, r"parameters\.optimizer\.damping: .*greater than"),
    ({"parameters": {"chip.tiles": [1]}}, r"chip\.tiles: not read by .* measures of kind analytic"),
    ({"parameters": {DAMPING: {"low": 2.0, "high": 1.0}}}, "low=2 is not below high=1"),
    ({"parameters": {DAMPING: {"low": 0.0, "high": 1.0, "log": True}}}, "no logarithm"),
    ({"parameters": {DAMPING: {"low": 0.1, "hgh": 1.0}}}, "hgh"),
    ({"objectives": {"one.bowls": "lowest"}}, r"study\.objectives\.one\.bowls: .*valid: one\.bowl"),
    ({"objectives": {"one.name": "lowest"}}, "is no number that is measured"),
    ({"constraints": {"two.x": {"at_most": 1.0}}}, r"study\.constraints\.two\.x"),
    ({"constraints": {"one.x": {}}}, "no limit"),
    ({"constraints": {"one.x": {"at_least": 2, "at_most": 1}}}, "at_least=2 is above at_most=1"),
    ({"objectives": ZDT, "sampler": {"kind": "cmaes"}}, "has one objective, got 2"),
    ({"parameters": {}}, r"study\.parameters: none is given; valid: search=headline"),
    ({"points": None}, "never ends by itself"),
    (
        {"sampler": {"kind": "grid"}, "parameters": {DAMPING: {"low": 0.1, "high": 1.0}}},
        "distances",
    ),
    ({"sampler": {"kind": "genetic"}}, "no sampler 'genetic'; valid: cmaes, grid, nsga2, random"),
    ({"finals": {"one": {"kind": "analytic"}}}, "a measure has this name"),
    ({"measures": {"chip": {"kind": "analytic"}}}, r"study\.measures\.chip: .* group of settings"),
    ({"finals": {"train": {"kind": "analytic"}}}, r"study\.finals\.train: .* group of settings"),
]


@pytest.mark.parametrize(("study", "said"), WRONG)
def test_what_is_wrong_is_refused_with_its_place(tmp_path, study, said):
    with pytest.raises(SettingsError, match=said):
        run_study(asked(tmp_path, **study), QUIET)


LENET = (
    "study=mine", "chip=repast", "workload=lenet5", "farm.backend=inprocess", "farm.chips=1",
)  # fmt: skip
COST = {
    "measures": {"cost": {"kind": "cost"}},
    "parameters": {
        "chip.tiles": {"low": 2, "high": 300, "log": True},
        "arrays": {
            "small": {"chip.vmm.rows": 128, "chip.vmm.cols": 128},
            "large": {"chip.vmm.rows": 256, "chip.vmm.cols": 256},
        },
        # Not all are valid beside eight arrays of a bank.
        "chip.residual.arrays_per_bank": [1, 2, 8],
        "soi.interval": [1, 5],
    },
    "objectives": {"cost.step_s": "lowest", "cost.energy_per_sample_j": "lowest"},
    "constraints": {"cost.area_m2": {"at_most": 5e-4}},
    "sampler": {"kind": "nsga2", "population": 8},
    "points": 24,
    "keep": 2,
    "finals": {"solve": {"kind": "solve", "steps": 1, "columns": 2}},
}


@pytest.fixture(scope="module")
def designs(tmp_path_factory):
    """The run directory of a search over chips, its settings, and what it printed."""
    tmp_path = tmp_path_factory.mktemp("designs")
    asked(tmp_path, **COST)
    settings = load_settings([*LENET, f"run_root={tmp_path}"], tmp_path / "my")
    out = io.StringIO()
    folder = run_study(settings, Console(file=out, width=80))
    return folder, settings, out.getvalue()


@pytest.mark.slow
def test_points_are_measured_with_the_settings_that_they_name(designs):
    folder, settings, _ = designs
    arrays = COST["parameters"]["arrays"]
    measured = [row for row in points(folder) if row["state"] != "refused"]
    for row in measured[::5]:
        changes = {name: row[name] for name in COST["parameters"] if name != "arrays"}
        here = changed(settings, changes | arrays[row["arrays"]])
        assert row["cost.step_s"] == summarise(planned_step(here)).step_s
        assert row["cost.area_m2"] == here.hardware.area_m2


def test_settings_that_are_not_valid_together_are_kept_with_the_reason(designs):
    folder, _, _ = designs
    refused = pq.read_table(folder / "tables" / "refused.parquet").to_pylist()
    assert refused
    for row in refused:
        assert row["chip.residual.arrays_per_bank"] == 8
        assert "leaves no array for weights" in row["reason"]


def test_a_design_is_used_by_its_name(designs):
    folder, settings, printed = designs
    best = pq.read_table(folder / "tables" / "designs.parquet").to_pylist()[1]
    line = next(line for line in printed.splitlines() if line.startswith("Best design:"))
    words = line.split("repast-dist ")[1].split()
    assert words[:2] == ["--config-dir", str(folder / "designs")]
    found = load_settings(
        ["study=plan", "workload=lenet5", "farm.chips=1", *words[2:]], folder / "designs"
    )
    arrays = COST["parameters"]["arrays"][best["arrays"]]
    changes = {name: best[name] for name in COST["parameters"] if name != "arrays"}
    wanted = to_dict(changed(settings, changes | arrays).chip)
    ours = to_dict(found.chip)
    assert ours["name"] == "design_1"
    assert "found by study=search as point" in ours["source"]
    assert {**ours, "name": "", "source": ""} == {**wanted, "name": "", "source": ""}
    assert found.soi.interval == best["soi.interval"]


def test_what_is_measured_of_the_best_alone_stands_beside_them(designs):
    folder, _, printed = designs
    own, *best = pq.read_table(folder / "tables" / "designs.parquet").to_pylist()
    assert own["solve.bits"] > 0
    assert all(row["solve.bits"] > 0 for row in best)
    # The console leaves out what is the same of all.
    for name in ("solve.bits", "solve.energy_j"):
        if name in own:
            differs = len({row[name] for row in (own, *best)}) > 1
            assert (name in printed) == differs
    assert "solve.bits" not in points(folder)[0]


def test_the_answer_comes_first_and_what_follows_fits_80_columns(designs):
    folder, _, printed = designs
    lines = [line for line in printed.splitlines() if not line.startswith("searching")]
    # It is one line, which a terminal breaks where it ends.
    assert lines[0].startswith("24 points")
    paths = ("Best design:", "Tables:", "Report:")
    assert all(len(line) <= 80 for line in lines[1:] if not line.startswith(paths))
    assert json.loads((folder / "answer.json").read_text())["answer"].startswith("24 points")


@pytest.mark.slow
def test_poor_trainings_are_stopped_and_the_best_is_the_same(tmp_path):
    study = {
        "measures": {"trained": {"kind": "train"}},
        "parameters": {"optimizer.learning_rate": [0.2, 0.1, 0.05, 0.02, 0.0001, 1e-6]},
        "objectives": {"trained.train_loss": "lowest"},
        "sampler": {"kind": "grid"},
        "points": None,
    }
    train = (
        "model=digits_mlp", "optimizer=sgd", "engine=float64", "train.epochs=4",
        "dataset.train_samples=512", "farm.backend=inprocess",
    )  # fmt: skip
    found = {}
    for pruning in (None, {"column": "trained.train_loss", "after_points": 2, "after_epochs": 2}):
        asked(tmp_path, **study, pruning=pruning)
        settings = load_settings(["study=mine", *train, f"run_root={tmp_path}"], tmp_path / "my")
        folder = run_study(settings, QUIET)
        found[pruning is not None] = points(folder)
    states = [row["state"] for row in found[True]]
    assert states[:2] != ["stopped early"] * 2
    assert states[-2:] == ["stopped early"] * 2
    records = {e["told"]: e["record"] for e in journal(folder) if "told" in e}
    assert len(records[0]["curve"]) == 4
    assert len(records[5]["curve"]) == 2
    # Runs that are not stopped are what they are without.
    best = [min(rows, key=lambda r: r["trained.train_loss"] or 9.9) for rows in found.values()]
    assert best[0]["point"] == best[1]["point"]
    assert best[0]["trained.train_loss"] == best[1]["trained.train_loss"]


@pytest.mark.slow
def test_a_killed_search_goes_on_and_another_process_joins_it(tmp_path):
    asked(tmp_path, **{**COST, "points": 60, "finals": {}, "sampler": {"kind": "random"}})
    command = [
        sys.executable, "-m", "repast_dist.cli", "--config-dir", str(tmp_path / "my"), *LENET,
    ]  # fmt: skip

    def started(*rest):
        return subprocess.Popen([*command[:3], *rest], stdout=subprocess.PIPE, text=True)

    first = started(*command[3:], f"run_root={tmp_path}")
    (folder,) = _when(lambda: list((tmp_path / "search").glob("2*")))
    _when(lambda: (folder / JOURNAL).exists() and len(journal_whole(folder)) > 12)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    told = sum("told" in entry for entry in journal_whole(folder))
    assert told < 60
    both = [started(f"resume={folder}"), started(f"resume={folder}")]
    texts = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    entries = journal(folder)
    for what in ("asked", "told"):
        numbers = [entry[what] for entry in entries if what in entry]
        assert sorted(numbers) == list(range(60))
    assert any("Report:" in text for text in texts)
    assert len(points(folder)) == 60
    # The points are those of a search that nobody stopped.
    whole = load_settings([*LENET, f"run_root={tmp_path}/whole"], tmp_path / "my")
    for ours, theirs in zip(points(folder), points(run_study(whole, QUIET)), strict=True):
        assert ours | {"cpu_s": 0} == theirs | {"cpu_s": 0}


def journal_whole(folder):
    lines = (folder / JOURNAL).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _when(ready, deadline_s=240.0):
    until = time.monotonic() + deadline_s
    while not (found := ready()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


@pytest.mark.slow
def test_the_tuned_chip_is_a_design_of_the_search_and_trains_bit_for_bit_alike():
    settings = load_settings(["search=headline"])
    tuned = load_settings(["search=headline", "chip=repast_tuned"])
    found, changes = to_dict(tuned.chip), {}
    for name, item in settings.study.parameters.items():
        options = item.values() if isinstance(item, Mapping) else [{name: _at(found, name)}]
        (same,) = [it for it in options if all(_at(found, p) == v for p, v in it.items())]
        changes |= same
    wanted = to_dict(changed(settings, changes).chip)
    assert {**found, "name": "", "source": ""} == {**wanted, "name": "", "source": ""}
    limits = settings.study.constraints
    assert limits["headline.area_m2"].excess(tuned.hardware.area_m2) == 0
    assert limits["headline.peak_power_w"].excess(tuned.hardware.peak_power_w) == 0
    tiny = ("model=digits_mlp", "dataset.train_samples=96", "train.epochs=1", "train.batch_size=32")
    losses = []
    for chip in ("repast", "repast_tuned"):
        trained = load_settings(["study=sweep", "farm.chips=1", f"chip={chip}", *tiny])
        figures = TrainMeasure().record(in_one_process(trained))
        losses.append([figures[n] for n in ("train_loss", "test_loss", "median_residual", "steps")])
    assert losses[0] == losses[1]
    assert losses[0][-1] == 3


def _at(chip, path):
    value = {"chip": chip}
    for part in path.split("."):
        value = value[part]
    return value


@pytest.mark.slow
def test_a_training_beside_float64_is_the_difference_of_means_over_seeds():
    tiny = ("model=digits_mlp", "dataset.train_samples=96", "train.epochs=1", "train.batch_size=32")
    settings = in_one_process(load_settings(["study=sweep", "chip=repast", "farm.chips=1", *tiny]))
    found = TrainMeasure(seeds=2, beside_float64=True).record(settings)
    exact = load_settings(["study=sweep", "chip=repast", "farm.chips=1", "engine=float64", *tiny])
    one = {
        name: [
            TrainMeasure().record(changed(in_one_process(own), {"seed": seed})) for seed in (0, 1)
        ]
        for name, own in (("analog", settings), ("float64", exact))
    }
    losses = {name: sum(run["train_loss"] for run in runs) / 2 for name, runs in one.items()}
    assert found["train_loss"] == losses["analog"]
    assert found["loss_over_float64"] == losses["analog"] - losses["float64"]
    assert found["steps"] == 3


@pytest.mark.parametrize(
    ("asked", "levels"),
    [
        ({"low": 1.5, "high": 4.5}, [2, 3, 4]),
        ({"low": 2.5, "high": 7.5, "step": 2}, [3, 5, 7]),
        ({"low": 2.5, "high": 6.5, "levels": 3}, [4, 6]),
        ({"low": 1, "high": 8, "log": True, "levels": 4}, [1, 2, 4, 8]),
    ],
)
def test_whole_levels_of_a_grid_lie_within_the_range(asked, levels):
    space = Space({"farm.chips": Range(**asked)}, frozenset({"farm.chips"}), "study.parameters")
    assert space.levels() == {"farm.chips": levels}
