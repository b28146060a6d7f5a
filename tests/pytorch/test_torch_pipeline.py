"""Modules of PyTorch whose operations are spread over chips."""

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from repast_dist.farm.peers import NoPeers  # noqa: E402
from repast_dist.farm.setup import beginning, make_setup  # noqa: E402
from repast_dist.farm.stages import StageRunner  # noqa: E402
from repast_dist.farm.worker import ChipWorker  # noqa: E402
from repast_dist.ground import user_code  # noqa: E402
from repast_dist.ground.errors import SettingsError  # noqa: E402
from repast_dist.settings import load_settings  # noqa: E402
from repast_dist.studies.settings import training_job  # noqa: E402

COMMON = (
    "model.factory=my_parts:make_own", "dataset.factory=my_parts:make_data",
    "farm.backend=inprocess", "train.batch_size=12", "train.micro_batch_size=4",
    "train.max_steps=2", "soi.block_size=16", "seed=3",
)  # fmt: skip
TEXT = ("dataset.factory=my_parts:make_text", "model.arguments={kind: gpt}")
BOTH = ("dataset.factory=my_parts:make_both",
        "model.arguments={kind: both}", "model.loss=my_parts:both_loss")  # fmt: skip
SPREAD = "partition.layers=pipeline"
EXACT = "engine=float64"


@pytest.fixture(autouse=True)
def lab(tmp_path, monkeypatch):
    """A folder with the user's modules, which are nowhere on Python's path."""
    monkeypatch.setattr(user_code, "_TAKEN", {})
    monkeypatch.setattr(user_code, "_OF_PLACE", {})
    folder = tmp_path / "lab"
    shutil.copytree(Path(__file__).parent / "lab", folder)
    monkeypatch.chdir(folder)


def setup_of(*others, network=None):
    settings = load_settings([*COMMON, *others])
    return make_setup(training_job(settings), settings.dataset.load(), network=network)


CASES = {
    "sampled Fisher, on arrays": ("train.batch_size=8",),
    "exact Fisher, fused, stale, older weights": (
        *(EXACT, "optimizer.fisher=exact", "optimizer.factor_decay=0.5"),
        *("soi.fusion=on", "soi.stale=1"),
        *("soi.fused_left_out=0.3", "partition.stages_in_flight=2", "partition.update_delay=1"),
    ),
    "text": (*TEXT, EXACT, "train.batch_size=8"),
    "several inputs and outputs": (*BOTH, EXACT, "model.likelihood=cross_entropy"),
    "whole matrices": (EXACT, "optimizer=muon"),
}


@pytest.fixture
def handed_on(monkeypatch):
    """How many numbers chips hand on, by what they are."""
    found = {}
    hand_on = StageRunner._hand_on

    def watched(runner, step, part, line):
        for (what, _, _), arrays in line._outgoing.items():
            found[what] = found.get(what, 0) + sum(values.size for values in arrays)
        hand_on(runner, step, part, line)

    monkeypatch.setattr(StageRunner, "_hand_on", watched)
    return found


def trained(setup, handed_on):
    """Train two steps; return losses of micro-batches, all states, and rows of the second step."""
    worker = ChipWorker(setup.chips, setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    first = worker.advance(0, 1)
    handed_on.clear()
    second = worker.advance(1, 1)
    outcomes = [sorted(answer.steps[0].outcomes, key=str) for answer in (first, second)]
    return outcomes, worker.common_state() | worker.block_state(), second.costs.rows.to_pylist()


@pytest.mark.parametrize("case", CASES)
def test_a_module_has_the_same_bits_whichever_chips_hold_its_operations(case, handed_on):
    """And what chips hand on is as large as what is priced."""
    settings = CASES[case]
    alone = setup_of(*settings, "farm.chips=1")
    wanted, state, _ = trained(alone, handed_on)
    assert wanted[0] != wanted[1]
    assert not handed_on
    for chips in (2, 3):
        setup = setup_of(*settings, SPREAD, f"farm.chips={chips}", network=alone.network)
        assert len(setup.parts) == chips
        # The setup travels to workers.
        cloudpickle = pytest.importorskip("cloudpickle")
        setup = cloudpickle.loads(cloudpickle.dumps(setup))
        outcomes, found, rows = trained(setup, handed_on)
        assert outcomes == wanted
        assert found.keys() == state.keys()
        for name, values in state.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        for what, numbers in handed_on.items():
            priced = sum(row["link_bytes"] for row in rows if row["op"] == f"send_{what}")
            value_bytes = setup.plan.hardware.geometry.value_bytes
            assert priced == numbers * value_bytes > 0


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("tied gpt", "weights are used again"),
        ("rounds", "cannot trace its operations"),
        ("noisy", "random numbers otherwise than by dropout"),
    ],
)
def test_modules_that_cannot_be_cut_say_why(kind, why):
    text = TEXT if kind == "tied gpt" else ()
    with pytest.raises(SettingsError, match=f"pipeline.*{why}.*valid: replicate"):
        setup_of(*text, f"model.arguments={{kind: {kind}}}", SPREAD, "farm.chips=2")


def test_parameters_without_rows_of_their_own_are_where_they_are_used():
    setup = setup_of(*TEXT, SPREAD, "farm.chips=2")
    names = [layer.name for layer in setup.network.workload.layers]
    assert names[:3] == ["embed", "position", "add"]
    first, second = setup.parts
    assert {"embed.weight", "position"} <= {item.name for item in first.parameters}
    assert "head" in {item.name for item in second.parameters}
    assert setup.network.workload.parameter_count == sum(
        parameter.numel() for parameter in setup.network.live.module.parameters()
    )
