"""A user's own question: variants x axes, measured, in one table."""

import io
import itertools
import json

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.costing import planned_step
from repast_dist.studies.settings import changed

QUIET = Console(file=io.StringIO())


def sweep(tmp_path, **study):
    """Run a question that is a YAML file in a folder of the user's own; JSON is YAML."""
    (tmp_path / "my" / "study").mkdir(parents=True)
    text = json.dumps({"name": "sweep", "measure": {"kind": "cost"}, **study})
    (tmp_path / "my" / "study" / "mine.yaml").write_text(text)
    base = ["farm.backend=inprocess", "chip=repast", "workload=lenet5", f"run_root={tmp_path}"]
    return run_study(load_settings(["study=mine", *base], tmp_path / "my"), QUIET)


def rows(folder):
    return pq.read_table(folder / "tables" / "points.parquet").to_pylist()


@pytest.mark.slow
def test_every_variant_is_measured_at_every_point_of_the_axes(tmp_path):
    folder = sweep(
        tmp_path,
        variants={"wide": {"chip.vmm.adcs_per_array": 4}, "narrow": {"chip.vmm.adcs_per_array": 1}},
        axes={"farm.chips": [1, 2], "train.batch_size": [64, 128]},
        best="step_s",
    )
    found = rows(folder)
    asked = list(itertools.product(("wide", "narrow"), (1, 2), (64, 128)))
    keys = ("variant", "farm.chips", "train.batch_size")
    assert [tuple(row[key] for key in keys) for row in found] == asked
    for row in found:
        # The same step, asked for by settings instead of a sweep.
        settings = load_settings(
            [
                "chip=repast",
                "workload=lenet5",
                f"chip.vmm.adcs_per_array={4 if row['variant'] == 'wide' else 1}",
                f"farm.chips={row['farm.chips']}",
                f"train.batch_size={row['train.batch_size']}",
            ]
        )
        assert row["step_s"] == summarise(planned_step(settings)).step_s
    (figure,) = json.loads((folder / "answer.json").read_text())["figures"]
    assert figure == {"name": "step_s", "value": min(r["step_s"] for r in found), "unit": "s"}


def test_a_solve_is_measured_to_the_bits_that_the_method_promises(tmp_path):
    settings = load_settings(
        [
            "study=sweep",
            "study.measure={kind:solve,steps:2,columns:2}",
            "study.axes={inversion.method:[single,fcg]}",
            "farm.backend=inprocess",
            f"run_root={tmp_path}",
        ]
    )
    single, fcg = rows(run_study(settings, QUIET))
    assert fcg["bits"] >= settings.inversion.target_bits > single["bits"]
    assert single["rounds"] == 1


def test_a_training_is_measured_to_its_last_epoch(tmp_path):
    settings = load_settings(
        [
            "study=sweep",
            "study.measure={kind:train}",
            "study.axes={optimizer.learning_rate:[0.0001,0.05]}",
            "model=digits_mlp",
            "optimizer=sgd",
            "engine=float64",
            "train.epochs=1",
            "dataset.train_samples=256",
            "farm.backend=inprocess",
            f"run_root={tmp_path}",
        ]
    )
    slow, fast = rows(run_study(settings, QUIET))
    assert fast["train_loss"] < slow["train_loss"]
    assert slow["steps"] == fast["steps"] == 2


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"farm.chps": [1]}, "did you mean 'chips'"),
        ({"nothing.at.all": [1]}, "no group of settings"),
        ({"farm.chips": [0]}, "greater than or equal to 1"),
        ({"seed": [1, 2]}, r"not read by study=sweep: study\.measure\.kind=cost needs none of it"),
        ({"baseline.name": ["mine"]}, r"not read by study=sweep; valid: .*study=headline"),
    ],
)
def test_an_axis_that_is_no_setting_is_refused_by_name(tmp_path, axes, said):
    with pytest.raises(SettingsError, match=said) as caught:
        sweep(tmp_path, axes=axes)
    assert next(iter(axes)) in str(caught.value)


def test_the_name_of_a_wrong_variant_is_in_the_message(tmp_path):
    with pytest.raises(SettingsError, match=r"^study\.variants\.two: inversion\.slices: "):
        sweep(tmp_path, variants={"one": {}, "two": {"inversion.slices": 2}})


def test_the_order_of_changes_does_not_matter():
    settings = load_settings(["inversion=single"])
    changes = {
        "inversion.max_iterations": 7,
        "inversion.method": "fcg",
        "inversion.product_bits": 12,
    }
    for order in (list(changes), list(changes)[::-1]):
        found = changed(settings, {path: changes[path] for path in order})
        assert (found.inversion.max_iterations, found.inversion.product_bits) == (7, 12)
    group = {"method": "fcg", "max_iterations": 9}
    for order in ({"inversion.max_iterations": 7, "inversion": group},
                  {"inversion": group, "inversion.max_iterations": 7}):  # fmt: skip
        assert changed(settings, order).inversion.max_iterations == 7
