"""What a run directory is after kills, damage and changed settings: found, mended or refused."""

import io
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import final_arrays
from rich.console import Console

import repast_dist as rd
from repast_dist.farm.checkpoint import list_checkpoints
from repast_dist.ground.errors import FarmError, RunDirectoryError
from repast_dist.ground.files import replaced, write_json
from repast_dist.settings import load_settings
from repast_dist.studies import multirun, recorder, resume_study, run_study
from repast_dist.studies import train as train_study
from repast_dist.studies.output import read_answer
from repast_dist.studies.verify import findings
from repast_dist.trace import read_solves, read_trace, verify

STEPS = 8
SETTINGS = (
    "model=digits_mlp", "train.batch_size=32", f"train.max_steps={STEPS}", "train.epochs=1",
    "farm.checkpoint_every=3", "farm.chips=2", "farm.backend=inprocess",
)  # fmt: skip


STEPS_FAST = 4
FAST = (*SETTINGS, f"train.max_steps={STEPS_FAST}", "optimizer=sgd", "engine=float64")


class Killed(BaseException):
    """Ends a run like a kill: nothing is written any more."""


def quiet() -> Console:
    return Console(file=io.StringIO())


def kill_after(step: int, root: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    """Leave the directory of a run that was killed when it had recorded some steps."""
    whole = recorder.RunRecorder.steps

    def steps(self, records, rows, solves):
        whole(self, records, rows, solves)
        if records[-1].step >= step:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(recorder.RunRecorder, "steps", steps)
        patched.setattr(recorder.RunRecorder, "finish", lambda *_, **__: None)
        patched.setattr(train_study, "seal", lambda *_: None)
        with pytest.raises(Killed):
            run_study(load_settings([f"run_root={root}", *SETTINGS, *overrides]), quiet())
    (run_dir,) = root.glob("train/*")
    return run_dir


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return kill_after(6, tmp_path_factory.mktemp("killed"), monkeypatch)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    return run_study(load_settings([f"run_root={root}", *SETTINGS]), quiet())


@pytest.fixture
def killed(killed_once, tmp_path) -> Path:
    return shutil.copytree(killed_once, tmp_path / "run")


@pytest.fixture
def finished(finished_once, tmp_path) -> Path:
    return shutil.copytree(finished_once, tmp_path / "run")


def check(run_dir: Path) -> str:
    """Return what study=verify prints; raises where it finds something."""
    console = quiet()
    run_study(load_settings(["study=verify", f"study.run={run_dir}"]), console)
    return console.file.getvalue()


def first_that_counts(content: bytes) -> int:
    """Return the first byte in the last quarter of a stream that is not between its columns."""
    rows = pa.ipc.open_stream(bytes(content)).read_all()
    for at in range(len(content) * 3 // 4, len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        try:
            if not pa.ipc.open_stream(bytes(changed)).read_all().equals(rows):
                return at
        except (pa.ArrowInvalid, OSError):
            return at
    raise AssertionError("nothing is in the last quarter")


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["trace-open.arrows", "solves-open.arrows"])
@pytest.mark.parametrize("damage", ["torn", "changed"])
def test_a_damaged_stream_leads_back_to_an_older_checkpoint_and_to_the_same_end(
    killed, finished_once, stream, damage
):
    path = killed / stream
    content = bytearray(path.read_bytes())
    if damage == "torn":
        del content[len(content) * 3 // 4 :]
    else:
        content[first_that_counts(content)] ^= 1
    path.write_bytes(content)
    console = quiet()
    resume_study(killed, {}, console)
    printed = console.file.getvalue()
    assert "of the trace or of the solve reports is missing, damaged or of another run" in printed
    assert final_arrays(killed) == final_arrays(finished_once)
    assert read_trace(killed / "trace").equals(read_trace(finished_once / "trace"))
    assert read_solves(killed).equals(read_solves(finished_once))
    assert "complete" in check(killed)


def test_a_run_that_was_killed_after_a_resume_does_not_show_how_it_ended_before(
    killed, monkeypatch
):
    def steps(*_):
        raise Killed

    path = killed / "result.json"
    ended = {"status": "interrupted", "totals": {}, "wear": {}, "finished": "then", "error": "no"}
    write_json(path, json.loads(path.read_text()) | ended)
    with monkeypatch.context() as patched, pytest.raises(Killed):  # noqa: PT012
        patched.setattr(recorder.RunRecorder, "steps", steps)
        patched.setattr(recorder.RunRecorder, "finish", lambda *_, **__: None)
        patched.setattr(train_study, "seal", lambda *_: None)
        resume_study(killed, {}, quiet())
    result = json.loads(path.read_text())
    assert result["status"] == "running"
    assert not {"totals", "wear", "finished", "error"} & set(result)
    with pytest.raises(RunDirectoryError, match="the run is running and has no totals"):
        run_study(load_settings(["study=report", f"study.run={killed}"]), quiet())


def test_a_stream_without_the_steps_of_any_checkpoint_is_an_error(killed):
    (killed / "trace-open.arrows").write_bytes(b"")
    with pytest.raises(RunDirectoryError, match="no usable checkpoint") as error:
        resume_study(killed, {}, quiet())
    assert "step 0 of the trace" in str(error.value)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A killed run of the same shape with another seed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return kill_after(6, tmp_path_factory.mktemp("other"), monkeypatch, "seed=1")


@pytest.mark.parametrize("name", ["trace-open.arrows", "solves-open.arrows", "checkpoints"])
def test_files_of_another_run_are_refused(killed, other, name):
    if name == "checkpoints":
        shutil.rmtree(killed / name)
        shutil.copytree(other / name, killed / name)
    else:
        shutil.copy(other / name, killed / name)
    with pytest.raises(RunDirectoryError, match="no usable checkpoint") as error:
        resume_study(killed, {}, quiet())
    why = "other settings" if name == "checkpoints" else "missing, damaged or of another run"
    assert why in str(error.value).splitlines()[1]


def test_changed_settings_are_refused_with_both_checksums(killed):
    path = killed / "settings.json"
    settings = json.loads(path.read_text())
    for changed in ({**settings, "seed": 5}, {k: v for k, v in settings.items() if k != "seed"}):
        write_json(path, changed)
        with pytest.raises(RunDirectoryError, match=r"settings.json: the settings have changed"):
            resume_study(killed, {}, quiet())


def test_other_versions_and_other_workers_are_recorded_on_resume(killed, monkeypatch):
    now = recorder.versions()
    monkeypatch.setattr(recorder, "versions", lambda: {**now, "numpy": "0.1"})
    resume_study(killed, {"checkpoint_every": 2}, quiet())
    events = json.loads((killed / "result.json").read_text())["events"]
    told = {item["kind"]: item["message"] for item in events}
    assert told["resume"] == "resumed at step 6, farm.checkpoint_every=2"
    assert told["versions"] == f"resumed with numpy 0.1 (the run began with {now['numpy']})"


@pytest.mark.slow
def test_every_changed_bit_of_a_finished_run_is_found(finished):
    assert "complete" in check(finished)
    files = sorted(path for path in finished.rglob("*") if path.is_file())
    draw = random.Random(7)
    sizes = [path.stat().st_size for path in files]
    missed = []
    # Half of them anywhere in a file, so that small files have their share, half by size.
    chosen = [*draw.choices(files, k=200), *draw.choices(files, weights=sizes, k=200)]
    for path in chosen:
        content = path.read_bytes()
        place, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
        changed = bytearray(content)
        changed[place] ^= bit
        path.write_bytes(changed)
        if next(findings(finished), None) is None:
            missed.append((path, content, bytes(changed)))
        path.write_bytes(content)
    for path, before, after in missed:
        # Only the space between the entries of a list of checksums may change.
        assert path.name == "checksums.json"
        assert json.loads(before) == json.loads(after)


@pytest.mark.parametrize("damage", ["deleted", "renamed", "of another run"])
def test_a_checkpoint_that_is_not_that_of_the_run_is_found(finished, killed_once, damage):
    newest = list_checkpoints(finished / "checkpoints")[-1]
    if damage == "renamed":
        newest.rename(newest.with_name("step-00000007"))
    else:
        shutil.rmtree(newest)
    if damage == "of another run":
        shutil.copytree(list_checkpoints(killed_once / "checkpoints")[-1], newest)
    (found,) = findings(finished)
    assert f"checkpoints/{newest.name}/checksums.json" in found


def test_a_run_without_room_for_its_page_gets_it_later(tmp_path, monkeypatch):
    from repast_dist.studies import run_page

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(run_page, "write_page", full)
        with pytest.raises(RunDirectoryError, match=r"No space left on device; resume=.*train"):
            run_study(load_settings([f"run_root={tmp_path}", *SETTINGS]), quiet())
    (run_dir,) = tmp_path.glob("train/*")
    assert json.loads((run_dir / "result.json").read_text())["status"] == "finished"
    (run_dir / ".report.html.tmp").write_text("half a pa")
    run_study(load_settings(["study=report", f"study.run={run_dir}"]), quiet())
    assert (run_dir / "report.html").stat().st_size > 20_000
    assert not list(run_dir.rglob(".*.tmp"))
    assert "complete" in check(run_dir)


def test_a_run_that_ends_while_its_resume_begins_is_not_resumed(killed, monkeypatch):
    """The status is read when the lock is held, not before."""
    whole = train_study._setup

    def ends_meanwhile(settings):
        write_json(
            killed / "result.json",
            {**json.loads((killed / "result.json").read_text()), "status": "finished"},
        )
        write_json(killed / "checksums.json", {"files": {}})
        return whole(settings)

    monkeypatch.setattr(train_study, "_setup", ends_meanwhile)
    with pytest.raises(RunDirectoryError, match="nothing to resume"):
        resume_study(killed, {}, quiet())


def test_a_lock_that_was_deleted_between_opening_and_locking_is_no_lock(tmp_path, monkeypatch):
    import fcntl

    from repast_dist.studies import run_directory

    def flock(file, _how):
        (tmp_path / ".lock").unlink()
        with replaced(tmp_path / ".lock") as aside:
            aside.touch()

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(RunDirectoryError, match="another process"),
        run_directory.locked(tmp_path),
    ):
        pass


def test_a_run_killed_before_its_first_checkpoint_begins_anew(killed, finished_once):
    shutil.rmtree(killed / "checkpoints")
    for name in ("trace-open.arrows", "solves-open.arrows"):
        (killed / name).unlink()
    resume_study(killed, {}, quiet())
    assert final_arrays(killed) == final_arrays(finished_once)
    assert "complete" in check(killed)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "foof", "muon", "newton_muon", "shampoo"])
def test_averages_and_momentum_of_an_optimizer_are_those_of_the_checkpoint(
    tmp_path, monkeypatch, optimizer
):
    chosen = f"optimizer={optimizer}"
    whole = run_study(load_settings([f"run_root={tmp_path}/whole", *SETTINGS, chosen]), quiet())
    run_dir = kill_after(6, tmp_path / "killed", monkeypatch, chosen)
    resume_study(run_dir, {}, quiet())
    assert final_arrays(run_dir) == final_arrays(whole)
    assert read_trace(run_dir / "trace").equals(read_trace(whole / "trace"))


def test_pruning_keeps_the_checkpoint_a_resume_began_from_not_damaged_ones(killed):
    newest = list_checkpoints(killed / "checkpoints")[-1]
    (newest / "arrays.npz").write_bytes(b"torn")
    resume_study(killed, {"checkpoint_keep": 1, "checkpoint_every": 1}, quiet())
    assert final_arrays(killed)
    assert verify(killed / "trace", steps=STEPS) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_saves_the_steps_done_and_the_run_goes_on(
    tmp_path, monkeypatch, finished_once, number
):
    whole = recorder.RunRecorder.steps

    def steps(self, records, rows, solves):
        whole(self, records, rows, solves)
        if records[-1].step == 4:
            signal.raise_signal(number)

    console = quiet()
    # Whoever started the tests may have had the signal ignored.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(recorder.RunRecorder, "steps", steps)
            with pytest.raises(KeyboardInterrupt):
                run_study(load_settings([f"run_root={tmp_path}", *SETTINGS]), console)
    finally:
        signal.signal(number, before)
    (run_dir,) = tmp_path.glob("train/*")
    assert f"resume={run_dir}" in console.file.getvalue()
    assert json.loads((run_dir / "result.json").read_text())["status"] == "interrupted"
    assert "complete" in check(run_dir)
    resume_study(run_dir, {}, quiet())
    assert final_arrays(run_dir) == final_arrays(finished_once)


@pytest.fixture(scope="module")
def points() -> list[list[str]]:
    return [[*FAST, f"seed={seed}"] for seed in (0, 1, 2)]


def swept(
    root: Path, points: list[list[str]], console: Console | None = None, jobs: int = 1
) -> Path:
    """Run a sweep and return its folder."""
    points = [[f"run_root={root}", *point] for point in points]
    return multirun.run_sweep([load_settings(point) for point in points], points, console, jobs)


@pytest.fixture(scope="module")
def undisturbed_sweep(tmp_path_factory, points) -> list[Path]:
    return runs_of(swept(tmp_path_factory.mktemp("sweep"), points, quiet()))


def runs_of(folder: Path) -> list[Path]:
    return [folder / run for run in json.loads((folder / "sweep.json").read_text())["runs"]]


@pytest.mark.slow
def test_runs_side_by_side_give_what_they_give_one_after_the_other(
    tmp_path, undisturbed_sweep, points
):
    console = quiet()
    folder = swept(tmp_path, points, console, jobs=2)
    assert [final_arrays(run) for run in runs_of(folder)] == [
        final_arrays(run) for run in undisturbed_sweep
    ]
    assert "3 runs, 2 at a time" in console.file.getvalue()
    rows = pq.read_table(folder / "tables" / "sweep.parquet").to_pylist()
    assert [row["seed"] for row in rows] == [0, 1, 2]


@pytest.mark.slow
def test_the_process_of_a_failed_run_tells_its_error_and_the_others_are_kept(tmp_path, points):
    # A file where the second run's directory would be.
    class Blocked(multirun.SweepState):
        @classmethod
        def begin(cls, folder, settings, overrides):
            super().begin(folder, settings, overrides)
            (folder / "0002").write_text("in the way")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(multirun, "SweepState", Blocked)
        with pytest.raises(RunDirectoryError, match=r"run 2 of 3: .*seed=1: .*0002"):
            swept(tmp_path, points, quiet(), jobs=2)
    (folder,) = tmp_path.glob("sweep/*")
    assert no_child_processes()
    (folder / "0002").unlink()
    rd.resume(folder, quiet=True, jobs=2)
    assert len(runs_of(folder)) == 3


@pytest.mark.slow
def test_ctrl_c_stops_runs_side_by_side_and_they_go_on(tmp_path, undisturbed_sweep):
    longer = [
        [*FAST, f"seed={seed}", "train.epochs=200", "train.max_steps=null"] for seed in (0, 1)
    ]
    shown = io.StringIO()

    def interrupt():
        while not list(tmp_path.glob("sweep/*/000?/result.json")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            swept(tmp_path, longer, Console(file=shown), jobs=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert no_child_processes()
    (folder,) = tmp_path.glob("sweep/*")
    assert f"resume={folder}" in shown.getvalue().replace("\n", "")
    begun = [json.loads(file.read_text()) for file in folder.glob("000?/result.json")]
    assert begun
    assert {result["status"] for result in begun} == {"interrupted"}


def no_child_processes() -> bool:
    return not any(
        "run_process" in " ".join(child.cmdline()) for child in psutil.Process().children()
    )


class Stop:
    """Ends a sweep when its runs have recorded some steps together."""

    def __init__(self, monkeypatch, after: int, error: BaseException) -> None:
        whole = recorder.RunRecorder.steps
        self.steps = 0

        def steps(this, records, rows, solves):
            whole(this, records, rows, solves)
            self.steps += len(records)
            if self.steps == after:
                raise error

        monkeypatch.setattr(recorder.RunRecorder, "steps", steps)
        if isinstance(error, Killed):
            finish, seal = recorder.RunRecorder.finish, train_study.seal
            # A run that is killed writes nothing more.
            monkeypatch.setattr(
                recorder.RunRecorder,
                "finish",
                lambda this, status, **more: status == "failed" or finish(this, status, **more),
            )
            monkeypatch.setattr(train_study, "seal", lambda run: self.steps == after or seal(run))


@pytest.mark.parametrize(
    ("after", "error"),
    [
        pytest.param(2, KeyboardInterrupt(), marks=pytest.mark.slow),
        pytest.param(7, KeyboardInterrupt(), marks=pytest.mark.slow),
        (7, Killed()),
        pytest.param(7, FarmError("gone"), marks=pytest.mark.slow),
    ],
    ids=["Ctrl-C in the first run", "Ctrl-C in the second", "kill in the second", "an error"],
)
def test_a_sweep_that_was_stopped_compares_what_it_has_and_goes_on(
    tmp_path, monkeypatch, undisturbed_sweep, points, after, error
):
    console = quiet()
    with monkeypatch.context() as patched, pytest.raises(type(error)):  # noqa: PT012
        Stop(patched, after, error)
        swept(tmp_path, points, console)
    (folder,) = tmp_path.glob("sweep/*")
    done = after // STEPS_FAST
    assert len(runs_of(folder)) == done
    if not isinstance(error, Killed):
        assert f"Stopped after {done} of 3 runs" in console.file.getvalue()
        assert f"repast-dist resume={folder}" in console.file.getvalue().replace("\n", "")
        assert (folder / "report.html").is_file() == (done > 0)
        assert not done or read_answer(folder).startswith(f"{done} of 3 runs, those done, ")
    before = [(run / "checksums.json").read_bytes() for run in runs_of(folder)]
    rd.resume(folder, "farm.checkpoint_every=2", quiet=True, jobs=1)
    runs = runs_of(folder)
    assert [(run / "checksums.json").read_bytes() for run in runs][:done] == before
    # The run under way was gone on with, not begun again.
    assert sorted(it.name for it in folder.glob("0*")) == ["0001", "0002", "0003"]
    assert [final_arrays(run) for run in runs] == [final_arrays(run) for run in undisturbed_sweep]
    assert all("complete" in check(run) for run in runs)
    assert (folder / "compare.html").is_file()
    with pytest.raises(RunDirectoryError, match="the sweep is finished"):
        rd.resume(folder)


def test_a_sweep_that_is_stopped_behind_its_last_run_is_finished(tmp_path, monkeypatch, points):
    do_missing, console = multirun.do_missing, quiet()

    def stopped(*arguments):
        do_missing(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(multirun, "do_missing", stopped)
    folder = swept(tmp_path, points[:1], console)
    assert (folder / "report.html").is_file()
    assert "Stopped" not in console.file.getvalue()


def test_a_sweep_resumes_with_its_own_settings_only(tmp_path, monkeypatch, points):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        Stop(patched, 2, KeyboardInterrupt())
        swept(tmp_path, points, quiet())
    (folder,) = tmp_path.glob("sweep/*")
    path = folder / "settings" / "0003.json"
    write_json(path, json.loads(path.read_text()) | {"seed": 7})
    with pytest.raises(RunDirectoryError, match=r"0003.json: the settings have changed"):
        rd.resume(folder)
    (folder / "sweep.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"sweep.json: damaged, 'plan' is missing"):
        rd.resume(folder)
