"""A user's own question: variants x axes, measured, in one table."""

import io
import itertools
import json
import math
import re

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.planning.summary import summarise
from repast_dist.settings import load_settings
from repast_dist.studies import run_study
from repast_dist.studies.costing import planned_step
from repast_dist.studies.kinds.sweep import SweepStudy
from repast_dist.studies.measures.cost import CostMeasure
from repast_dist.studies.settings import changed
from repast_dist.studies.sweep import sweep_page

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


def drawn(folder):
    """Return heading -> traces of every figure of a page."""
    page = (folder / "report.html").read_text()
    headings = re.findall(r"<figure[^>]*><h3>(.*?)</h3>", page)
    specs = re.findall(r'class="spec" data-for="[^"]*">(.*?)</script>', page)
    return {h: json.loads(spec)["data"] for h, spec in zip(headings, specs, strict=True)}


def test_no_point_covers_another_in_a_chart(tmp_path):
    folder = sweep(
        tmp_path,
        axes={
            "farm.chips": [1, 2],
            "train.batch_size": [32, 64],
            "device.opamp.gbw_hz": [None, 1e8],
        },
        charts=[
            {"kind": "bars", "x": "farm.chips", "y": "step_s", "series": "train.batch_size"},
            {"kind": "heat_map", "x": "farm.chips", "y": "device.opamp.gbw_hz", "value": "step_s"},
            {"x": "step_s", "y": "energy_per_sample_j"},
        ],
    )
    found = {
        (row["farm.chips"], row["train.batch_size"], row["device.opamp.gbw_hz"]): row["step_s"]
        for row in rows(folder)
    }
    figures = drawn(folder)
    assert list(figures) == [
        "step_s over farm.chips, device.opamp.gbw_hz=None",
        "step_s over farm.chips, device.opamp.gbw_hz=100000000.0",
        "step_s over farm.chips, train.batch_size=32",
        "step_s over farm.chips, train.batch_size=64",
        "energy_per_sample_j over step_s",
    ]
    bars = figures["step_s over farm.chips, device.opamp.gbw_hz=None"]
    assert [bar["y"] for bar in bars] == [
        [pytest.approx(1e3 * found[chips, batch, None]) for chips in (1, 2)] for batch in (32, 64)
    ]
    (heat,) = figures["step_s over farm.chips, train.batch_size=64"]
    assert heat["z"] == [[found[chips, 64, hz] for chips in (1, 2)] for hz in (None, 1e8)]
    assert len(figures["energy_per_sample_j over step_s"][0]["x"]) == 8


def test_an_axis_of_lists_is_drawn_as_text(tmp_path):
    folder = sweep(
        tmp_path,
        axes={
            "partition.replicate_layers": [True, False],
            "farm.chip_overrides": [{}, {"0": {"speed": 0.5}}],
        },
        charts=[{"kind": "bars", "x": "farm.chip_overrides", "y": "step_s"}],
    )
    figures = drawn(folder)
    assert [list(bars["x"]) for (bars,) in figures.values()] == [
        ["{}", "{'0': {'speed': 0.5}}"]
    ] * 2
    assert [row["partition.replicate_layers"] for row in rows(folder)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("chart", "said"),
    [
        (
            {"x": "farm.chips", "y": "steps"},
            r"study\.charts\.0\.y: no column 'steps'; valid: .*step_s",
        ),
        (
            {"x": "chips", "y": "step_s"},
            r"study\.charts\.0\.x: no column 'chips'; valid: variant, farm",
        ),
        (
            {"x": "farm.chips", "y": "limited_by"},
            r"study\.charts\.0\.y: no numbers in 'limited_by'",
        ),
        (
            {"kind": "heat_map", "x": "farm.chips", "y": "variant"},
            r"study\.charts\.0\.value: no column",
        ),
        (
            {"x": "variant", "y": "step_s", "log_x": True},
            r"study\.charts\.0\.x: no numbers in 'variant'",
        ),
    ],
)
def test_a_chart_of_what_is_not_measured_is_refused_in_a_line(tmp_path, chart, said):
    with pytest.raises(SettingsError, match=said):
        sweep(tmp_path, axes={"farm.chips": [1]}, charts=[chart])


def test_a_point_without_a_number_is_not_the_best():
    study = SweepStudy(measure=CostMeasure(), axes={"seed": (0, 1)}, best="loss")
    found = sweep_page(study, [{"variant": "", "seed": 0, "loss": math.nan},
                               {"variant": "", "seed": 1, "loss": 2.0}])  # fmt: skip
    assert found.answer == "Of 2 points seed=1 has the lowest loss: 2."


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
