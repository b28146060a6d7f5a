"""Everything on: two modelled effects are left out on purpose, and any can be."""

from pathlib import Path

import numpy as np
import pytest

import repast_dist as rd
from repast_dist.hardware.effects import ideal_effects
from repast_dist.settings import load_settings
from repast_dist.studies.kinds.sweep import SweepStudy
from repast_dist.studies.sweep import sweep_points

VERIFIED = "cell errors in residual products"
WIRED = "wire resistance in residual products"
LEFT_OUT = {VERIFIED, WIRED}
"""Off in the experiment, since networks diverge with them."""

OF_INVERTING = {
    f"{what} of inverting arrays' {kind}"
    for what in ("offset", "gain error", "nonlinearity", "noise")
    for kind in ("ADCs", "DACs")
}

OFF = {
    "everything on": set(),
    "no programming error": {"programming error"},
    # The fast part of 1/f noise is left.
    "no read noise": set(),
    "no 1/f noise": {"1/f noise"},
    "no stuck cells": {"stuck cells"},
    "stuck cells not mapped around": set(),
    "no wear": {"wear"},
    "no drift": {"drift"},
    "no shared variation": {
        "variation that cells of an array share",
        "variation from chip to chip",
    },
    "same temperature as when written": set(),
    "no wire resistance": {"wire resistance"},
    "ideal converters": {
        f"{what} of converters" for what in ("offset", "gain error", "nonlinearity", "noise")
    },
    "ideal converters of inverting arrays": OF_INVERTING,
    "offsets of converters are not nulled": set(),
    "ideal DACs of multiplying arrays": {
        f"{what} of multiplying arrays' DACs" for what in ("gain error", "noise")
    },
    "residual products behind wires": set(),
    "exact cells in residual products": set(),
    "errors of cells in residual products": set(),
    "amplifiers of infinite gain": {"finite gain of amplifiers"},
    "no offset and input current of amplifiers": {
        "offset of amplifiers",
        "input conductance of amplifiers",
    },
    "linear cells": {"curve of cells' current over voltage"},
    "no second pole of amplifiers": {"second pole of amplifiers"},
    "no slew rate of amplifiers": {"slew rate of amplifiers"},
    "no noise of amplifiers": {"noise of amplifiers"},
    "one_pulse": set(),
}


@pytest.mark.parametrize("model", ["digits_cnn", "fashion_mlp", "fashion_cnn"])
def test_honest_hardware_leaves_two_modelled_effects_out(model: str) -> None:
    data = "digits" if model.startswith("digits") else "fashion_1280"
    settings = load_settings(["experiment=honest", f"model={model}", f"dataset={data}"])
    assert set(ideal_effects(settings.hardware)) == LEFT_OUT
    assert set(vars(settings.engine).values()) & {"float64", "fixed"} == set()


def test_every_variant_of_the_effects_switches_off_what_it_says() -> None:
    settings = load_settings(["study=effects", "experiment=honest"])
    study = settings.study
    assert isinstance(study, SweepStudy)
    found = {
        name: set(ideal_effects(point.settings.hardware))
        for name, point in zip(study.variants, sweep_points(study, settings), strict=True)
    }
    ideal = found.pop("ideal")
    assert [name for name, off in found.items() if VERIFIED not in off] == [
        "errors of cells in residual products"
    ]
    assert [name for name, off in found.items() if WIRED not in off] == [
        "no wire resistance",
        "residual products behind wires",
    ]
    assert {name: off - LEFT_OUT for name, off in found.items()} == OFF
    assert ideal >= set().union(*OFF.values()) - {
        # Amplifiers at rest at once have no poles, and nothing slews or is noisy on the way.
        "second pole of amplifiers", "slew rate of amplifiers", "noise of amplifiers",
        # Where those of all converters are off they have one name.
        *OF_INVERTING, *OFF["ideal DACs of multiplying arrays"],
    }  # fmt: skip


@pytest.mark.slow
def test_a_network_learns_with_every_effect_on(tmp_path: Path) -> None:
    run = rd.train(
        "train.batch_size=64",
        "train.max_steps=8",
        experiment="honest",
        model="digits_mlp",
        farm="inprocess",
        run_root=tmp_path,
        quiet=True,
    )
    losses = [step["loss"] for step in run.result["steps"]]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert set(run.result["ideal_effects"]) == LEFT_OUT


@pytest.mark.slow
def test_the_default_network_trains_on_with_every_effect_on(tmp_path: Path) -> None:
    """Over three short epochs: with offsets of a quarter of a code that are not nulled, which add
    up over the passes of an ADC, accuracy stays below 0.8.
    """
    run = rd.train(
        "train.max_steps=30",
        "train.batch_size=64",
        "dataset.train_samples=640",
        experiment="honest",
        farm="inprocess",
        run_root=tmp_path,
        quiet=True,
    )
    last = run.result["epochs"][-1]
    assert last["epoch"] == 3
    assert last["test_accuracy"] > 0.86
