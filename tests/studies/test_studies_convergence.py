"""The convergence study: equal budgets, honest verdicts, one K-FAC, points that are reused."""

import functools
import io
import textwrap
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.files import read_json
from repast_dist.settings import load_settings
from repast_dist.studies import resume_study, run_study
from repast_dist.studies.convergence.cases import Cases
from repast_dist.studies.convergence.claims import claim_rows
from repast_dist.studies.convergence.tables import (
    Run,
    best_settings,
    summary_rows,
    target_rows,
    trade_off_rows,
)
from repast_dist.studies.settings import changed, in_one_process, training_job

TINY = [
    "study=convergence_quick",
    "model=digits_mlp",
    "model@study.tasks.autoencoder.model=digits_autoencoder",
    "dataset=digits",
    "dataset.train_samples=256",
    "farm.backend=inprocess",
    "study.methods=[float64,single]",
    "study.pi_methods=[single]",
    "study.damping=[0.3,0.1]",
    "study.noise_levels=[0.01]",
    "study.block_sizes=[32,65]",
    "train.epochs=2",
    "train.batch_size=64",
    "train.micro_batch_size=64",
    "study.seeds=2",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("convergence")
    return run_study(load_settings([*TINY, f"run_root={root}"]), Console(file=io.StringIO()))


def rows(folder, name):
    return pq.read_table(folder / "tables" / f"{name}.parquet").to_pylist()


@pytest.mark.slow
def test_every_optimizer_is_searched_with_as_many_settings_on_both_tasks(folder):
    searched = rows(folder, "search")
    counts = {}
    for row in searched:
        key = row["task"], row["optimizer"]
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert set(counts.values()) == {2}


@pytest.mark.slow
def test_the_reported_runs_use_the_best_searched_rate(folder):
    searched = rows(folder, "search")
    for row in rows(folder, "targets"):
        rivals = [
            item
            for item in searched
            if item["task"] == row["task"] and row["optimizer"].startswith(item["optimizer"])
        ]
        best = min(rivals, key=lambda item: item["final_loss"])
        assert (row["rate"], row["damping"]) == (best["rate"], best["damping"])
        assert row["seeds"] == 2


@pytest.mark.slow
def test_training_lowers_the_loss_and_costs_add_up_over_epochs(folder):
    for task in ("classifier", "autoencoder"):
        curve = [
            row
            for row in rows(folder, "curves")
            if (row["task"], row["optimizer"]) == (task, "kfac, float64")
        ]
        assert [row["epoch"] for row in curve] == [1, 2]
        assert curve[1]["loss"] < curve[0]["loss"]
        assert curve[1]["time_s"] == pytest.approx(2 * curve[0]["time_s"], rel=0.3)
        assert curve[1]["energy_j"] > curve[0]["energy_j"] > 0


@pytest.mark.slow
def test_an_inversion_on_arrays_costs_other_than_one_in_the_digital_unit(folder):
    cost = {row["method"]: row["energy_j"] for row in rows(folder, "damping")}
    assert cost["single"] != cost["float64"]


@pytest.mark.slow
def test_answers_that_miss_their_target_are_used_and_counted(folder):
    found = {(row["method"], row["damping"]): row for row in rows(folder, "damping")}
    single, exact = found["single", 0.3], found["float64", 0.3]
    assert single["missed"] == 1.0
    assert exact["missed"] == 0.0
    assert single["final_loss"] != exact["final_loss"]
    assert single["final_loss"] == pytest.approx(exact["final_loss"], rel=0.2)


@pytest.mark.slow
def test_a_study_of_the_same_points_takes_them_over(folder, tmp_path):
    text = io.StringIO()
    again = run_study(
        load_settings([*TINY, f"run_root={tmp_path}", f"study.reuse=[{folder}]"]),
        Console(file=text),
    )
    assert " took " not in text.getvalue()
    names = {file.name for file in (folder / "points").iterdir()}
    assert {file.name for file in (again / "points").iterdir()} == names
    assert rows(again, "damping") == rows(folder, "damping")


@pytest.mark.slow
def test_a_lost_point_is_trained_again_to_the_same_numbers(folder):
    before = rows(folder, "damping")
    lost = sorted((folder / "points").iterdir())[0]
    record = read_json(lost)
    lost.unlink()
    resume_study(folder, {}, Console(file=io.StringIO()))
    assert read_json(lost) == record
    assert rows(folder, "damping") == before


def test_unequal_search_budgets_are_refused():
    with pytest.raises(SettingsError, match="search budgets differ"):
        load_settings(
            ["study=convergence", "study.optimizers.sgd.search={optimizer.learning_rate: [0.1]}"]
        )


def test_a_variant_that_is_not_defined_is_refused_with_those_that_are():
    with pytest.raises(SettingsError, match=r"study.*methods: no variant 'fgc'; valid: .*fcg"):
        load_settings(["study=convergence", "study.methods=[float64,fgc]"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "study.variants.fcg={inversion.slices: 2}",
            r"^study\.variants\.fcg: inversion\.slices: .*array_slices",
        ),
        (
            "study.variants.fcg={inversion.array_slices: 0}",
            r"^study\.variants\.fcg: inversion\.array_slices: ",
        ),
        (
            "study.variants.fcg={inversion.method: fgc}",
            r"^study\.variants\.fcg: inversion\.method: no inversion scheme 'fgc'; valid: .*fcg",
        ),
        (
            "study.variants.fcg={inversion.on_divergence: damp}",
            r"^study\.variants\.fcg: inversion\.on_divergence: not read by study=convergence",
        ),
        (
            "study.optimizers.sgd.settings={baseline.name: mine}",
            r"^study\.optimizers\.sgd\.settings: baseline\.name: not read by study=convergence",
        ),
        ("study.tasks.classifier={models: x}", r"^study\.tasks\.classifier: models: "),
    ],
)
def test_a_wrong_setting_of_a_variant_is_refused_as_on_the_command_line(override, said):
    settings = load_settings(["study=convergence", override])
    with pytest.raises(SettingsError, match=said):
        Cases(settings.study, settings)


def test_the_example_of_the_documentation_adds_a_way_to_invert(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "convergence.md"
    text = page.read_text().partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "slices.yaml").write_text(textwrap.dedent(text))
    settings = load_settings(["study=slices"], tmp_path)
    found = {
        case.labels["method"]: case.settings.inversion.array_slices
        for case in Cases(settings.study, settings).damping()
    }
    assert found["fcg2"] == 2
    assert found["fcg"] == 1
    assert set(settings.study.methods) == {"float64", "fcg", "fcg2"} <= set(found)


def test_a_study_of_inversions_needs_an_optimizer_that_inverts():
    settings = load_settings(["study=convergence", "optimizer=adam"])
    with pytest.raises(SettingsError, match=r"^optimizer: adam inverts nothing"):
        Cases(settings.study, settings)


def test_noise_is_given_to_cells_of_any_model_that_can_have_it():
    ideal = ["study=convergence", "device=ideal", "study.chip_noise=0.0"]
    without = load_settings([*ideal, "study.noise=[0.0]"])
    assert Cases(without.study, without).damping()
    noisy = load_settings([*ideal, "study.noise=[0.01]"])
    with pytest.raises(SettingsError, match="'ideal' has no programming error"):
        Cases(noisy.study, noisy).damping()


COMMON = ["study=convergence", "farm.chips=2"]
SHIPPED = {
    "float64": ["engine.inverse=float64"],
    "fixed8": ["engine.inverse=fixed", "engine.fixed_inverse_bits=8"],
    "fixed16": ["engine.inverse=fixed", "engine.fixed_inverse_bits=16"],
    **{
        scheme: ["engine.inverse=analog", f"inversion={scheme}"]
        for scheme in ("single", "taylor", "refine", "fcg")
    },
}
SHIPPED["fcg"].append("inversion.array_pieces=nested")


def commanded(overrides):
    """Return the job that a command line with these overrides makes, in one process."""
    settings = in_one_process(load_settings([*COMMON, *overrides]))
    # What the study does with misses cannot be set on its command line; see `ignores`.
    return training_job(changed(settings, {"inversion.on_divergence": "use"}))


def the_case(cases, **labels):
    (found,) = [case for case in cases if labels.items() <= case.labels.items()]
    return found


@pytest.fixture(scope="module")
def shipped():
    settings = load_settings(
        [
            *COMMON,
            "study.methods=[float64,fixed8,fixed16,single,taylor,refine,fcg]",
            "study.pi_methods=[float64,fcg]",
        ]
    )
    return Cases(settings.study, settings)


@pytest.mark.parametrize("method", SHIPPED)
def test_a_point_over_damping_is_the_run_that_a_command_line_makes(shipped, method):
    analog = method in ("single", "taylor", "refine", "fcg")
    noise = 0.01 if analog else 0.0
    overrides = ["optimizer.damping=0.03", *SHIPPED[method], "seed=0"]
    if analog:
        overrides.append("device.inv_cell.programming_sigma=0.01")
    cases = shipped.damping()
    case = the_case(cases, part="damping", method=method, damping=0.03, noise=noise, seed=0)
    assert case.job == commanded(overrides)
    assert case.labels["arithmetic"] == ("analog" if analog else "digital")


def test_points_of_every_other_kind_are_runs_that_a_command_line_makes(shipped):
    cell = "device.inv_cell.programming_sigma"
    pi = the_case(
        shipped.damping(), part="damping form", method="fcg", damping=0.003, noise=0.01, seed=1
    )
    assert pi.job == commanded(
        ["optimizer.damping_form=pi", "optimizer.damping=0.003", *SHIPPED["fcg"], f"{cell}=0.01",
         "seed=1"]
    )  # fmt: skip
    axes = shipped.axes(0.1)
    noisy = the_case(axes, part="noise", method="single", noise=0.03, seed=2)
    assert noisy.job == commanded(
        ["optimizer.damping=0.1", *SHIPPED["single"], f"{cell}=0.03", "seed=2"]
    )
    narrow = the_case(axes, part="blocks", method="float64", block_size=64, seed=0)
    assert narrow.job == commanded(
        ["optimizer.damping=0.1", *SHIPPED["float64"], "soi.block_size=64"]
    )
    searched = the_case(shipped.search(), task="autoencoder", optimizer="adam", rate=0.002, seed=3)
    assert searched.job == commanded(
        ["optimizer=adam", "optimizer.learning_rate=0.002", "model=fashion_autoencoder_small",
         "seed=3"]
    )  # fmt: skip
    best = [
        {"task": "classifier", "optimizer": "kfac", "rate": 0.1, "damping": 0.3},
        {"task": "autoencoder", "optimizer": "sgd", "rate": 0.3, "damping": None},
    ]
    compared = shipped.optimizers(best)
    on_chips = the_case(compared, optimizer="kfac, fcg", seed=1)
    assert on_chips.job == commanded(
        ["optimizer.learning_rate=0.1", "optimizer.damping=0.3", *SHIPPED["fcg"], f"{cell}=0.01",
         "seed=1"]
    )  # fmt: skip
    first_order = the_case(compared, optimizer="sgd", seed=0)
    assert first_order.job == commanded(
        ["optimizer=sgd", "optimizer.learning_rate=0.3", "model=fashion_autoencoder_small"]
    )


def test_only_variants_on_arrays_are_trained_at_several_noises_and_slow_ones_with_one_seed(shipped):
    counts = {}
    for case in shipped.damping():
        if case.labels["part"] == "damping":
            key = case.labels["method"], case.labels["damping"]
            counts[key] = counts.get(key, 0) + 1
    assert {counts[method, 0.1] for method in ("float64", "fixed8", "fixed16")} == {3}
    assert {counts[method, 0.1] for method in ("single", "fcg")} == {2 * 3}
    assert {counts[method, 0.1] for method in ("taylor", "refine")} == {2}


@functools.cache
def study():
    return load_settings(["study=convergence"]).study


def record(losses, *, first=2.3, diverged=None, time_s=1.0, energy_j=1.0):
    epochs = [
        {
            "epoch": k + 1,
            "step": 10 * (k + 1),
            "train_loss": loss,
            "test_loss": loss,
            "test_accuracy": 0.5,
            "time_s": time_s * (k + 1),
            "energy_j": energy_j * (k + 1),
        }
        for k, loss in enumerate(losses)
    ]
    return {"epochs": epochs, "first_loss": first, "diverged": diverged, "solves": {}}


def damping_run(method, noise, damping, seed, losses, **options):
    arithmetic = "digital" if method == "float64" else "analog"
    labels = {"part": "damping", "method": method, "arithmetic": arithmetic}
    labels |= {"damping": damping, "noise": noise}
    return Run({**labels, "seed": seed}, record(losses, **options))


def optimizer_run(optimizer, seed, losses, **options):
    order, arithmetic = ("second", "analog") if "kfac" in optimizer else ("first", "digital")
    labels = {"part": "optimizers", "task": "classifier", "rate": 0.1, "damping": None}
    labels |= {"order": order, "arithmetic": arithmetic}
    return Run({**labels, "optimizer": optimizer, "seed": seed}, record(losses, **options))


def test_a_run_that_breaks_off_counts_with_the_loss_it_began_with():
    broken = Run({}, record([1.0], diverged="loss is not finite"))
    risen = Run({}, record([1.0, 1e6]))
    fine = Run({}, record([1.0, 0.5]))
    assert [run.final_loss for run in (broken, risen, fine)] == [2.3, 2.3, 0.5]
    assert [run.diverged for run in (broken, risen, fine)] == [True, True, False]


def verdicts(single, fcg):
    damping = [
        *(damping_run("float64", 0.0, 0.1, seed, [0.20 + 0.01 * seed]) for seed in range(3)),
        *(damping_run("float64", 0.0, 0.3, seed, [0.30]) for seed in range(3)),
        *(damping_run("single", 0.0, 0.1, seed, [single]) for seed in range(3)),
        *(damping_run("single", 0.0, 0.3, seed, [0.31]) for seed in range(3)),
        *(damping_run("fcg", 0.0, 0.1, seed, [fcg]) for seed in range(3)),
    ]
    claims = claim_rows(study(), summary_rows(damping), [], 4)
    return {item["claim"].partition(" ")[0]: item["verdict"] for item in claims[:2]}


def test_eight_bits_are_said_to_be_worse_only_where_they_are():
    assert verdicts(2.0, 0.21) == {"single": "holds", "fcg": "holds"}
    assert verdicts(0.21, 0.5) == {"single": "does not hold", "fcg": "does not hold"}


def test_the_target_is_the_better_first_order_loss_and_half_the_epochs_are_counted():
    runs = [
        *(optimizer_run("sgd", seed, [1.0, 0.9, 0.8, 0.7]) for seed in range(2)),
        *(optimizer_run("adam", seed, [1.0, 0.8, 0.6, 0.5]) for seed in range(2)),
        *(optimizer_run("kfac, fcg", s, [0.9, 0.5, 0.4, 0.3], time_s=9.0) for s in range(2)),
    ]
    rows = {row["optimizer"]: row for row in target_rows(runs)}
    assert rows["kfac, fcg"]["target"] == 0.5
    assert rows["kfac, fcg"]["epochs_to_target"] == 2
    assert rows["kfac, fcg"]["time_to_target_s"] == 18.0
    assert rows["adam"]["epochs_to_target"] == 4
    assert rows["sgd"]["epochs_to_target"] is None
    damping = summary_rows([damping_run("float64", 0.0, 0.1, 0, [0.2])])
    claims = {
        item["claim"].partition(": ")[2]: item["verdict"]
        for item in claim_rows(study(), damping, list(rows.values()), 4)
    }
    assert [verdict for claim, verdict in claims.items() if "half" in claim] == ["holds"]
    assert [v for c, v in claims.items() if "simulated time" in c] == ["does not hold"]


def test_the_best_setting_is_that_of_the_lowest_mean_over_seeds():
    runs = [
        damping_run("float64", 0.0, 0.1, 0, [0.1]),
        damping_run("float64", 0.0, 0.1, 1, [0.5]),
        damping_run("float64", 0.0, 0.3, 0, [0.2]),
        damping_run("float64", 0.0, 0.3, 1, [0.2]),
    ]
    (best,) = best_settings(runs, ("method",))
    assert best["damping"] == 0.3
    assert best["final_loss"] == pytest.approx(0.2)


def test_blocks_are_compared_with_the_largest():
    blocks = [
        {"method": "fcg", "block_size": 64, "final_loss": 0.4, "time_s": 1.0, "energy_j": 3.0},
        {"method": "fcg", "block_size": 785, "final_loss": 0.2, "time_s": 4.0, "energy_j": 6.0},
    ]
    found = {(r["block_size"], r["quantity"]): r["relative"] for r in trade_off_rows(blocks)}
    assert np.allclose([found[64, q] for q in ("final loss", "seconds", "joules")], [2, 0.25, 0.5])
    assert {found[785, q] for q in ("final loss", "seconds", "joules")} == {1.0}
