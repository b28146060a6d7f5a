"""What goes wrong around a run ends in one line, and what was computed is kept."""

import contextlib
import functools
import io
import resource
import shutil
import signal

import numpy as np
import pytest
from conftest import final_arrays

import repast_dist as rd
from repast_dist import cli
from repast_dist.cli import main
from repast_dist.studies import recorder
from repast_dist.studies.scaling import answer as scaling_answer
from repast_dist.studies.verify import findings

WORDS = [
    "farm.backend=inprocess", "farm.chips=1", "model=digits_mlp", "optimizer=sgd",
    "engine=float64", "train.max_steps=6", "farm.checkpoint_every=2",
]  # fmt: skip


@pytest.fixture
def command(tmp_path, capsys):
    """Run the command; return its status and the only line of its errors."""

    def run(*words: str) -> tuple[int, str]:
        status = main([*WORDS, f"run_root={tmp_path}", *words])
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) <= 1, errors
        return status, "".join(errors)

    return run


def test_data_that_is_not_a_number_is_named(command, tmp_path):
    inputs, labels = np.random.default_rng(0).random((200, 8, 8)), np.arange(200) % 10
    inputs[3, 2, 2] = np.nan
    sets = {"train": (inputs, labels), "test": (inputs[:20], labels[:20])}
    arrays = {f"x_{name}": x for name, (x, _) in sets.items()}
    arrays |= {f"y_{name}": y for name, (_, y) in sets.items()}
    np.savez(tmp_path / "some.npz", **arrays)
    status, error = command("dataset=npz", f"dataset.path={tmp_path / 'some.npz'}")
    assert status == 1
    assert error.endswith("some.npz, train: inputs have NaN or infinity; valid: finite numbers")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_study_in_this_process_ends_at_a_signal_in_one_line(
    tmp_path, monkeypatch, capsys, number
):
    """Its finished points are kept, and the line says how to go on with them."""
    cost, done, sent = scaling_answer.cost_job, [], []

    @functools.wraps(cost)
    def job(shared, item):
        if len(done) == 1 and not sent:
            sent.append(number)
            signal.raise_signal(number)
        done.append(item)
        return cost(shared, item)

    monkeypatch.setattr(scaling_answer, "cost_job", job)
    words = ["study=scaling", "workload=lenet5", "study.chips=[1,2,4]", "study.modes=[strong]"]
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)
    try:
        assert main([*words, "farm=inprocess", f"run_root={tmp_path}"]) == 130
    finally:
        signal.signal(number, before)
    (run_dir,) = tmp_path.glob("scaling/*")
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == f"Interrupted. Go on with: repast-dist resume={run_dir}"
    assert told.out.count("nterrupted") == 1
    assert told.err == ""
    assert len(done) == len(list((run_dir / "points").iterdir())) == 1
    assert main([f"resume={run_dir}"]) == 0
    assert len(done) == 3


def test_a_terminal_of_few_letters_gets_others_for_those_it_lacks(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(cli, "_run", lambda _: print("0.5 µs", flush=True))
    main([])
    assert written.getvalue() == b"0.5 ?s\n"


def test_memory_that_does_not_suffice_is_one_line(command, monkeypatch):
    def no_room(*_):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(cli, "_run", no_room)
    assert command() == (1, "repast-dist: error: out of memory (Unable to allocate 9 TiB)")


@pytest.mark.parametrize("root", ["/proc/some", "/dev/null", "/dev/null/some"])
def test_a_place_that_cannot_be_written_is_named(command, root):
    status, error = command(f"run_root={root}")
    assert status == 1
    assert error.startswith(f"repast-dist: error: run_root: no run can begin in {root}/train (")


@pytest.mark.parametrize("how", [shutil.rmtree, lambda path: path.rename(path.with_name("moved"))])
def test_a_run_directory_that_is_deleted_or_moved_meanwhile_is_missed(command, monkeypatch, how):
    whole = recorder.RunRecorder.steps

    def steps(self, records, rows, solves):
        whole(self, records, rows, solves)
        if records[-1].step == 3:
            how(self._path.parent)

    monkeypatch.setattr(recorder.RunRecorder, "steps", steps)
    status, error = command()
    assert status == 1
    assert "No such file or directory" in error


@contextlib.contextmanager
def files_no_larger_than(size: int):
    """What a full disk does to large files: their writers get an error in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [1_000, 30_000, 100_000, 400_000])
def test_a_disk_that_is_full_ends_a_run_in_one_line_and_with_room_it_goes_on(
    command, tmp_path, tmp_path_factory, size
):
    # What is made once is made before.
    whole = rd.train(*WORDS, run_root=tmp_path_factory.mktemp("whole"), quiet=True)
    with files_no_larger_than(size):
        status, error = command()
    assert status == 1
    assert "File too large" in error
    runs = list(tmp_path.glob("train/2*"))
    if size < 2_000:
        # Not even the settings had room.
        assert runs == []
        assert list(tmp_path.rglob("*.tmp")) == []
        return
    assert error.endswith(f"resume={runs[0]} goes on")
    rd.resume(runs[0], quiet=True)
    assert final_arrays(runs[0]) == final_arrays(whole.folder)
    assert list(findings(runs[0])) == []
