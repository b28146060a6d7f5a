"""A checkpoint gives back exactly what was saved, or is refused by name."""

import json

import numpy as np
import pytest
from conftest import final_arrays
from losing_farms import Ends, Loses

import repast_dist as rd
from repast_dist.farm import launch
from repast_dist.farm.checkpoint import (
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from repast_dist.ground.errors import FarmError, RunDirectoryError
from repast_dist.trace import read_trace, verify


def _arrays(step):
    return {"weights/conv1": np.random.default_rng(step).normal(size=(5, 3)), "k": np.array([step])}


def test_arrays_and_state_come_back_bit_for_bit(tmp_path):
    path = save_checkpoint(tmp_path, 7, _arrays(7), {"epochs": [{"loss": 0.1 + 0.2}]}, keep=2)
    loaded = load_checkpoint(path)
    assert loaded.step == 7
    assert loaded.state == {"epochs": [{"loss": 0.1 + 0.2}]}
    for name, value in _arrays(7).items():
        assert loaded.arrays[name].tobytes() == value.tobytes()


def test_only_the_newest_checkpoints_stay(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step, _arrays(step), {}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]


def _flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [_flip_a_byte, _cut, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["arrays.npz", "state.json"])
def test_a_torn_or_changed_checkpoint_is_refused_by_name_and_the_one_before_is_used(
    tmp_path, name, damage
):
    save_checkpoint(tmp_path, 1, _arrays(1), {}, keep=2)
    newest = save_checkpoint(tmp_path, 2, _arrays(2), {}, keep=2)
    damage(newest / name)
    with pytest.raises(RunDirectoryError, match=r"step-00000002"):
        load_checkpoint(newest)
    checkpoint, refused = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert len(refused) == 1
    assert "step-00000002" in refused[0]


def test_a_checkpoint_holding_pickled_objects_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, 1, _arrays(1), {}, keep=1)
    import hashlib

    np.savez(path / "arrays.npz", evil=np.array([object()], dtype=object))
    sums = json.loads((path / "checksums.json").read_text())
    sums["arrays.npz"] = hashlib.sha256((path / "arrays.npz").read_bytes()).hexdigest()
    (path / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(RunDirectoryError, match="allow_pickle"):
        load_checkpoint(path)


def test_a_failed_write_leaves_the_older_checkpoint_and_nothing_half_done(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, _arrays(1), {}, keep=1)

    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 2, _arrays(2), {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_newer_damaged_checkpoint_never_displaces_a_good_one(tmp_path):
    for step in (20, 40):
        save_checkpoint(tmp_path, step, _arrays(step), {}, keep=2)
    _cut(tmp_path / "step-00000040" / "arrays.npz")
    save_checkpoint(tmp_path, 25, _arrays(25), {}, keep=1)
    checkpoint, refused = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.step, refused) == (25, [])


@pytest.mark.slow
def test_a_run_whose_trace_was_lost_goes_back_to_no_checkpoint_of_steps_it_has_not_redone(
    train, tmp_path, monkeypatch
):
    small = (
        "model=digits_mlp", "optimizer=sgd", "train.batch_size=24", "train.micro_batch_size=24",
        "train.epochs=1", "train.max_steps=6", "farm.backend=inprocess", "farm.chips=1",
        "dataset.train_samples=144", "dataset.test_fraction=0.03", "farm.checkpoint_every=2",
        "model.layers=[{kind: flatten}, {kind: dense, name: readout, outputs: 10}]",
    )  # fmt: skip
    undisturbed = train(*small, root=tmp_path / "undisturbed")
    with monkeypatch.context() as patched:
        patched.setattr(launch, "InProcessFarm", Ends)
        with pytest.raises(FarmError, match="as the test wants it"):
            train(*small, root=tmp_path / "ended")
        (run,) = (tmp_path / "ended").glob("train/2*")
        with pytest.raises(FarmError, match="as the test wants it"):
            rd.resume(run, quiet=True)
    _flip_a_byte(run / "trace" / "steps-00000002-00000004.parquet")
    with monkeypatch.context() as patched:
        patched.setattr(launch, "InProcessFarm", Loses)
        rd.resume(run, quiet=True)
    assert verify(run / "trace", steps=6) == []
    assert read_trace(run / "trace").equals(read_trace(undisturbed / "trace"))
    assert final_arrays(run) == final_arrays(undisturbed)
    steps = json.loads((run / "result.json").read_text())["steps"]
    assert [step["step"] for step in steps] == list(range(6))
