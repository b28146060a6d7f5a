"""A training run says when ADC ranges clip: once, by name, the same on any number of chips."""

import json

import pytest

from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job
from repast_dist.training.engines import ClipCount

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


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=digits_cnn", "dataset=digits", "train.epochs=3"),
        pytest.param(
            ("model=fashion_mlp", "dataset=fashion_small", "train.micro_batch_size=8"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("model=fashion_cnn", "dataset=fashion_small"), marks=pytest.mark.slow),
    ],
    ids=["digits_cnn", "fashion_mlp", "fashion_cnn"],
)
@pytest.mark.parametrize(("margin", "times"), [(0.0, 4.0), (0.125, 1.0)])
def test_ranges_of_the_step_before_clip_what_the_percentile_leaves(overrides, margin, times):
    """At most its share on any layer with a margin, without one a few times that, once training
    has settled.
    """
    changes = ("train.max_steps=24", *overrides, f"chip.adc.margin={margin}", "farm=inprocess")
    settings = load_settings(list(changes))
    job = training_job(settings)
    setup = make_setup(job, settings.dataset.load())
    worker = ChipWorker(tuple(range(job.farm.chips)), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    sums: dict[str, ClipCount] = {}
    for step in range(24):
        (report,) = worker.advance(step, 1).steps
        for counts in report.clipping if step >= 8 else ():
            for what, count in counts.items():
                sums[what] = sums.get(what, ClipCount()).plus(count)
    share = 1.0 - job.machine.hardware.chip.adc.percentile / 100.0
    # A count of a few conversions has an error of its own.
    few = 20 if times > 1 else 0
    rates = {w: c.rate for w, c in sums.items() if c.clipped > few + times * share * c.conversions}
    assert rates == {}
