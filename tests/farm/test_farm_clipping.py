"""A training run says when ADC ranges clip: once, by name, the same on any number of chips."""

import json

SMALL = ("model=digits_mlp", "train.max_steps=2", "train.epochs=1", "farm.backend=inprocess")


def _result(run_dir):
    return json.loads((run_dir / "result.json").read_text())


def test_ranges_that_cut_off_a_tenth_of_the_currents_are_named_once(train):
    result = _result(train(*SMALL, "chip.adc.percentile=90"))
    clipping = [event for event in result["events"] if event["kind"] == "clipping"]
    names = [event["message"].split(":")[0] for event in clipping]
    assert len(names) == len(set(names))
    # Roles that are analog in the default engine, and a layer of each.
    assert any(name.startswith("forward ") for name in names)
    assert all("percentile" in event["message"] for event in clipping)
    assert all(0.02 < step["clip_rate"] < 0.12 for step in result["steps"])


def test_the_default_ranges_clip_next_to_nothing_on_any_number_of_chips(train):
    one, three = (_result(train(*SMALL, f"farm.chips={chips}")) for chips in (1, 3))
    rates = [step["clip_rate"] for step in one["steps"]]
    assert rates == [step["clip_rate"] for step in three["steps"]]
    assert all(0.0 <= rate < 0.002 for rate in rates)
    assert not [event for event in one["events"] if event["kind"] == "clipping"]


def test_exact_arithmetic_has_no_converters(train):
    result = _result(train(*SMALL, "engine=float64"))
    assert all("clip_rate" not in step for step in result["steps"])
