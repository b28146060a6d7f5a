"""What holds a block, and when it is written, follows from the block, not from who has it."""

import json

import numpy as np
import pytest
from conftest import final_arrays

from repast_dist.farm.peers import NoPeers
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job

# The inputs of the first layer are two blocks of a factor of 65 rows, each wider than an array.
SMALL = (
    "farm.backend=inprocess", "model=digits_mlp", "soi.block_size=40", "chip.inv.size=16",
    "soi.interval=3", "train.batch_size=32", "train.max_steps=8", "train.epochs=1",
    "inversion.target_bits=6",
)  # fmt: skip
WAYS = {
    "pieces": ("inversion.array_pieces=diagonal",),
    "inverse": ("inversion=explicit", "inversion.inverse_from=1"),
}


def _steps(run_dir):
    return json.loads((run_dir / "result.json").read_text())["steps"]


@pytest.mark.parametrize("way", WAYS)
def test_any_number_of_chips_and_any_shares_have_the_same_bits(way, train, tmp_path):
    runs = [
        train(
            *SMALL,
            *WAYS[way],
            f"farm.chips={chips}",
            f"partition.grad_worker_fraction={share}",
            root=tmp_path / f"{chips}",
        )
        for chips, share in ((1, 0.0), (2, 1.0), (3, 0.5))
    ]
    losses = [[step["loss"] for step in _steps(run)] for run in runs]
    assert losses[0] == losses[1] == losses[2]
    assert final_arrays(runs[0]) == final_arrays(runs[1]) == final_arrays(runs[2])


@pytest.mark.parametrize("stop", [4, 6])
@pytest.mark.parametrize("way", WAYS)
def test_a_worker_goes_on_from_what_it_saved(way, stop):
    whole, other = _worker(way), _worker(way)
    whole.advance(0, stop)
    other.restore(stop, whole.common_state() | whole.block_state())
    for worker in (whole, other):
        worker.advance(stop, 8 - stop)
    found, wanted = (w.common_state() | w.block_state() for w in (other, whole))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def _worker(way):
    loaded = load_settings([*SMALL, *WAYS[way], "farm.chips=1"])
    setup = make_setup(training_job(loaded), loaded.dataset.load())
    worker = ChipWorker((0,), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    return worker
