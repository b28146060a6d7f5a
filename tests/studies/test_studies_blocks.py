"""What wider SOI blocks bring: progress by hand, and the page of a small network."""

import io
import json
import shlex

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.block_progress import Progress
from repast_dist.studies.block_widths import PlannedSteps
from repast_dist.studies.costing import planned_step
from repast_dist.studies.factors import Factor, factors_of, second_order_of
from repast_dist.studies.settings import changed
from repast_dist.training.optimizers.foof import Foof
from repast_dist.training.optimizers.kfac import Kfac

TINY = ("study=blocks", "model=digits_mlp", "study.steps=2", "study.widths=[8,16,4096]")


def factor(layer, side, rows, gradient, sizes):
    random = np.random.default_rng([rows, len(layer)])
    root = random.standard_normal((rows, rows + 3))
    seen = gradient if side == "A" else gradient.T
    return Factor(layer, side, root @ root.T / rows, sizes, seen)


@pytest.fixture(scope="module")
def layers():
    """Two layers, of 7 x 5 and 4 x 6."""
    random = np.random.default_rng(3)
    made = {}
    for layer, (rows, columns) in {"one": (7, 5), "other": (4, 6)}.items():
        gradient = random.standard_normal((rows, columns))
        sizes = {"A": (2.0 * rows, rows), "G": (0.5 * columns, columns)}
        made[layer] = {
            "A": factor(layer, "A", rows, gradient, sizes),
            "G": factor(layer, "G", columns, gradient, sizes),
        }
    return made


def blockwise(matrix, ranges):
    """Return a copy without what is outside of blocks."""
    cut = np.zeros_like(matrix)
    for first, last in ranges:
        cut[first:last, first:last] = matrix[first:last, first:last]
    return cut


def by_hand(layers, optimizer, ranges):
    """Return the progress with the Fisher matrix of every layer written out."""
    along = curved = best = 0.0
    for layer, sides in layers.items():
        gradient = sides["A"].gradient.ravel()
        matrices = {
            side: sides[side].matrix + optimizer.dampings(sides[side].sizes)[side]
            * np.eye(len(sides[side].matrix))
            for side in sides
        }  # fmt: skip
        other = matrices.get("G", np.eye(len(sides["G"].matrix) if "G" in sides else 0))
        fisher = np.kron(matrices["A"], other)
        cut = {s: blockwise(m, ranges.get((layer, s), [(0, len(m))])) for s, m in matrices.items()}
        direction = np.linalg.solve(np.kron(cut["A"], cut["G"]), gradient)
        along += gradient @ direction
        curved += direction @ fisher @ direction
        best += gradient @ np.linalg.solve(fisher, gradient)
    return along / np.sqrt(curved * best)


@pytest.mark.parametrize(
    ("widths", "ranges"),
    [
        ({}, {}),
        ({("one", "A"): 4}, {("one", "A"): [(0, 3), (3, 7)]}),
        (
            {("one", "A"): 3, ("one", "G"): 3, ("other", "G"): 1},
            {
                ("one", "A"): [(0, 2), (2, 4), (4, 7)],
                ("one", "G"): [(0, 2), (2, 5)],
                ("other", "G"): [(n, n + 1) for n in range(6)],
            },
        ),
    ],
)
@pytest.mark.parametrize("form", ["pi", "plain"])
def test_progress_is_that_of_the_fisher_matrix_written_out(layers, widths, ranges, form):
    kfac = Kfac(damping=0.1, damping_form=form)
    found = Progress(layers, kfac).of(widths)
    assert found == pytest.approx(by_hand(layers, kfac, ranges), rel=1e-12)
    assert found == pytest.approx(1.0, rel=1e-12) if not widths else found < 1.0


def test_a_side_that_an_optimizer_does_not_have_is_the_identity(layers):
    foof, only = Foof(damping=0.1), {name: {"A": own["A"]} for name, own in layers.items()}
    identity = {
        name: {
            "A": own["A"],
            "G": Factor(name, "G", np.zeros_like(own["G"].matrix), {}, own["G"].gradient),
        }
        for name, own in layers.items()
    }

    class Undamped:
        """Adds FOOF's damping to A, and 1 to G, which is the identity then."""

        def dampings(self, sizes):
            return {**foof.dampings(sizes), "G": 1.0}

    ranges = {("one", "A"): [(0, 3), (3, 7)]}
    assert Progress(only, foof).of({("one", "A"): 4}) == pytest.approx(
        by_hand(identity, Undamped(), ranges), rel=1e-12
    )


def settings_factors(settings):
    """Return what steps take and bring after two steps of training."""
    second = second_order_of(settings.optimizer)
    return PlannedSteps(settings, factors_of(settings, 2), second)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    settings = load_settings([*TINY, f"run_root={tmp_path_factory.mktemp('runs')}"])
    return run_study(settings, Console(file=io.StringIO()))


def rows(folder, name):
    return pq.read_table(folder / "tables" / f"{name}.parquet").to_pylist()


@pytest.mark.slow
def test_every_width_is_priced_as_its_plan_and_whole_factors_are_the_last(folder):
    found = rows(folder, "widths")
    assert [row["block_size"] for row in found] == [8, 16, 65]
    settings = load_settings([*TINY])
    whole = found[-1]
    assert whole["progress"] == pytest.approx(1.0, rel=1e-9)
    assert found[0]["progress"] < found[1]["progress"] < 1.0
    for row in found:
        own = changed(settings, {"soi.block_size": row["block_size"]})
        plan = planned_step(own)
        assert (row["step_s"], row["blocks"]) == (summarise(plan).step_s, len(plan.blocks))
        assert row["time_of_progress"] == pytest.approx(
            row["step_s"] / whole["step_s"] / row["progress"]
        )
    best = min(found, key=lambda row: row["time_of_progress"])
    answer = json.loads((folder / "answer.json").read_text())
    assert answer["figures"][0]["value"] == best["block_size"]
    assert f"blocks of {best['block_size']} rows take the least time" in answer["answer"]


@pytest.mark.slow
def test_of_single_factors_the_progress_is_that_of_cutting_them_alone(folder):
    found = rows(folder, "factors")
    assert all(row["block_size"] < row["rows"] for row in found)
    assert {row["factor"] for row in found} == {"A", "G"}
    together = {row["block_size"]: row["progress"] for row in rows(folder, "widths")}
    for width in (8, 16):
        alone = [row["progress"] for row in found if row["block_size"] == width]
        assert together[width] <= min(alone) + 1e-9


@pytest.mark.slow
def test_a_width_for_each_factor_is_no_worse_than_any_other_choice_of_one_of_them(folder):
    """Nor than one width for all; a run that takes the settings of the page is planned alike."""
    layers = settings_factors(load_settings([*TINY]))
    chosen = rows(folder, "chosen")
    uniform = rows(folder, "widths")
    for found in rows(folder, "by_factor"):
        goal = f"{found['least']}_of_progress"
        assert found[goal] <= min(row[goal] for row in uniform)
        words = shlex.split(found["settings"])
        own = load_settings(["study=plan", "workload=model", "model=digits_mlp", *words])
        plan = planned_step(own)
        assert (found["step_s"], found["blocks"]) == (summarise(plan).step_s, len(plan.blocks))
        widths = {(w.layer, w.factor): w.block_size for w in own.soi.widths}
        for row in chosen:
            key = row["layer"], row["factor"]
            assert widths.get(key, row["rows"]) == row[f"least {found['least']}"]
        for row in chosen:
            for width in {8, 16, row["rows"]}:
                other = {
                    (r["layer"], r["factor"]): r[f"least {found['least']}"] for r in chosen
                } | {(row["layer"], row["factor"]): min(width, row["rows"])}
                assert layers.cost(found["least"], other) >= found[goal] - 1e-12


@pytest.mark.parametrize("optimizer", ["muon", "newton_muon", "sgd"])
def test_optimizers_without_factors_alone_are_refused(optimizer, tmp_path):
    settings = load_settings([*TINY, f"optimizer={optimizer}", f"run_root={tmp_path}"])
    with pytest.raises(SettingsError, match=r"optimizer.*valid"):
        run_study(settings, Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())
