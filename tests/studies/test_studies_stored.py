"""Runs whose directories are copied to a store: stopped here and gone on with elsewhere."""

import functools
import io
import json
import logging
import shutil
from pathlib import Path

import pytest
from conftest import final_arrays
from rich.console import Console

import repast_dist as rd
from repast_dist.cli import main
from repast_dist.farm.storage.bucket import Bucket
from repast_dist.farm.storage.manifest import Manifest, newest
from repast_dist.farm.storage.mirror import Mirror
from repast_dist.ground.errors import RunDirectoryError, SettingsError, StorageError
from repast_dist.ground.files import read_json
from repast_dist.settings import load_settings
from repast_dist.studies import recorder, resume_stored, resume_study, run_study
from repast_dist.studies.scaling import answer as scaling_answer
from repast_dist.studies.verify import findings
from repast_dist.trace import read_solves, read_trace

STEPS = 7
SETTINGS = (
    "model=digits_mlp", "train.batch_size=32", f"train.max_steps={STEPS}", "train.epochs=1",
    "farm.checkpoint_every=2", "farm.chips=2", "farm.backend=inprocess",
    "dataset.test_fraction=0.03", "soi.block_size=40", "storage.lease_s=5",
)  # fmt: skip


class Killed(BaseException):
    """Ends a run like a kill: nothing is written any more."""


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def settings_of(root: Path, uri: str | None, *overrides: str):
    where = [f"storage.uri={uri}"] if uri else []
    return load_settings([f"run_root={root}", *SETTINGS, *where, *overrides])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing disturbed and nobody copied."""
    return run_study(settings_of(tmp_path_factory.mktemp("whole"), None), quiet())


@pytest.fixture
def uri(tmp_path) -> str:
    return f"file://{tmp_path / 'store' / 'run'}"


def kill_after(uri: str, root: Path, manifests: int) -> None:
    """Run until the files after so many manifests are in the store, and their manifest is not."""
    write, count = Manifest.write, []

    def write_some(self, bucket):
        if len(count) == manifests:
            raise Killed
        count.append(self)
        write(self, bucket)

    def saved(mirror, every_s=0.0):
        # Beside the run, but before anything else is done.
        mirror._copy(mirror._snapshot(), complete=False)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Manifest, "write", write_some)
        patched.setattr(Mirror, "saved", saved)
        patched.setattr(Mirror, "finish", lambda *_, **__: None)
        with pytest.raises(Killed):
            run_study(settings_of(root, uri), quiet())


def assert_same(run_dir: Path, whole: Path) -> None:
    assert final_arrays(run_dir) == final_arrays(whole)
    assert read_trace(run_dir / "trace").equals(read_trace(whole / "trace"))
    assert read_solves(run_dir).equals(read_solves(whole))
    assert not list(findings(run_dir))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.slow
def test_a_copied_run_is_verified_and_exported_from_the_store(tmp_path, uri, whole):
    console = quiet()
    run_dir = run_study(settings_of(tmp_path / "runs", uri), console)
    assert f"Copy:          {uri}" in console.file.getvalue()
    assert_same(run_dir, whole)
    read = load_settings(["study=verify", f"study.run={uri}", f"run_root={tmp_path / 'there'}"])
    console = quiet()
    there = run_study(read, console)
    assert f"complete; {STEPS} steps" in console.file.getvalue()
    assert files_of(there) == files_of(run_dir)
    # A second run does not get the first one's place, nor is there anything to go on with.
    with pytest.raises(RunDirectoryError, match="holds a run already; valid: resume=file:///"):
        run_study(settings_of(tmp_path / "runs", uri), quiet())
    with pytest.raises(RunDirectoryError, match="finished, there is nothing to resume"):
        rd.resume(uri, quiet=True)
    # A page that is made anew goes where the run came from.
    before = newest(Bucket(uri))
    words = ["study=report", f"study.run={uri}", "study.standalone=true"]
    again = run_study(load_settings([*words, f"run_root={tmp_path / 'third'}"]), quiet())
    after = newest(Bucket(uri))
    assert after.complete
    assert after.files["report.html"].size == (again / "report.html").stat().st_size
    assert after.files["report.html"].size > before.files["report.html"].size + 1_000_000
    assert after.files["trace-manifest.json"] == before.files["trace-manifest.json"]


FAST = ("optimizer=sgd", "engine=float64")


def test_one_line_begins_a_job_goes_on_with_it_and_finds_it_finished(tmp_path, uri, monkeypatch):
    """As a cluster that starts the same line again on machines of its choice does it."""
    words = [*FAST, "storage.go_on=true"]
    steps = recorder.RunRecorder.steps

    def interrupted(self, records, rows, solves):
        steps(self, records, rows, solves)
        if records[-1].step >= 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recorder.RunRecorder, "steps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_study(settings_of(tmp_path / "a", uri, *words), quiet())
    told, runs = [], []
    for machine in ("b", "c"):
        console = quiet()
        more = [*words, "farm.checkpoint_every=3"]
        runs.append(run_study(settings_of(tmp_path / machine, uri, *more), console))
        told.append(console.file.getvalue())
    assert "at step 4" in told[0]
    assert told[1].strip() == f"Finished before: {uri}"
    assert files_of(runs[0]) == files_of(runs[1])
    assert [item["step"] for item in read_json(runs[1] / "result.json")["steps"]] == [*range(STEPS)]
    with pytest.raises(RunDirectoryError, match="a run with other settings; valid: another prefix"):
        run_study(settings_of(tmp_path / "d", uri, *words, "seed=1"), quiet())
    with pytest.raises(SettingsError, match="go_on: there is no prefix"):
        settings_of(tmp_path / "d", None, "storage.go_on=true")


@pytest.mark.slow
def test_points_of_a_sweep_have_prefixes_of_their_own(tmp_path, uri, monkeypatch, own_folder):
    axes = {"seed": [0, 1]}
    words = [*SETTINGS, *FAST, f"storage.uri={uri}", "storage.go_on=true"]
    first = rd.sweep(axes, *words, jobs=1, quiet=True, run_root=str(tmp_path / "a"))
    assert [newest(Bucket(f"{uri}/{name}")).complete for name in ("0001", "0002")] == [True, True]
    assert "storage.uri" not in first.table.column_names
    # On another machine the same line finds both.
    monkeypatch.setattr("repast_dist.studies.train._train", None)
    second = rd.sweep(axes, *words, jobs=1, quiet=True, run_root=str(tmp_path / "b"))
    assert second.table.equals(first.table)
    # And both are on the page of what is stored.
    assert main(["study=runs", f"run_root={uri}"]) == 0
    page = tmp_path / "runs" / "stores" / uri.removeprefix("file:///")
    assert (page / "index.html").is_file()
    assert (page / "0002" / "report.html").is_file()
    assert not (page / "0002" / "trace").exists()


def test_a_run_works_in_a_local_folder(uri):
    with pytest.raises(SettingsError, match=r"run_root: .*valid: a folder, and storage.uri="):
        load_settings([f"run_root={uri}"])


def test_points_of_a_study_are_copied_and_gone_on_with(tmp_path, uri, monkeypatch):
    """What was finished is not computed again on another machine."""
    words = [
        "study=scaling", "workload=lenet5", "study.chips=[1,2]", "study.modes=[strong]",
        "farm=inprocess", f"storage.uri={uri}", f"run_root={tmp_path / 'a'}",
    ]  # fmt: skip
    cost, done = scaling_answer.cost_job, []

    def at_most(number):
        @functools.wraps(cost)
        def job(shared, item):
            if len(done) == number:
                raise KeyboardInterrupt
            done.append(item)
            return cost(shared, item)

        return job

    with monkeypatch.context() as patched:
        patched.setattr(scaling_answer, "cost_job", at_most(1))
        with pytest.raises(KeyboardInterrupt):
            run_study(load_settings(words), quiet())
        assert len([name for name in newest(Bucket(uri)).files if "points/" in name]) == 1
        patched.setattr(scaling_answer, "cost_job", at_most(9))
        run_dir = resume_stored(uri, {}, tmp_path / "b", quiet())
    assert len(done) == 2
    assert (run_dir / "report.html").is_file()
    assert newest(Bucket(uri)).complete


@pytest.mark.parametrize("manifests", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_run_killed_before_its_manifest_goes_on_on_an_empty_machine(
    tmp_path, uri, whole, manifests
):
    kill_after(uri, tmp_path / "first", manifests)
    # The machine is gone.
    shutil.rmtree(tmp_path / "first")
    console = quiet()
    run_dir = resume_stored(uri, {}, tmp_path / "second", console)
    assert f"at step {(manifests - 1) * 2}" in console.file.getvalue()
    assert_same(run_dir, whole)
    result = json.loads((run_dir / "result.json").read_text())
    assert [item["step"] for item in result["steps"]] == list(range(STEPS))
    last = newest(Bucket(uri))
    assert last.complete
    assert set(last.files) == set(files_of(run_dir))
    assert set(Bucket(uri).items("files")) == {item.key for item in last.files.values()}


def test_what_went_on_elsewhere_is_not_overwritten_from_an_older_directory(tmp_path, uri, whole):
    kill_after(uri, tmp_path / "first", 2)
    (first,) = (tmp_path / "first" / "train").iterdir()
    run_dir = resume_stored(uri, {}, tmp_path / "second", quiet())
    with pytest.raises(RunDirectoryError, match="holds what another process went on with; valid:"):
        resume_study(first, {}, quiet())
    assert newest(Bucket(uri)).files["result.json"].size == (run_dir / "result.json").stat().st_size


@pytest.mark.slow
def test_the_directory_of_a_copied_run_can_be_gone_on_with_where_it_is(tmp_path, uri, whole):
    kill_after(uri, tmp_path / "first", 2)
    (first,) = (tmp_path / "first" / "train").iterdir()
    assert_same(resume_study(first, {}, quiet()), whole)
    assert newest(Bucket(uri)).complete
    with pytest.raises(RunDirectoryError, match="finished, there is nothing to resume"):
        resume_study(first, {}, quiet())


def test_a_store_that_fails_for_a_while_is_caught_up_with(
    tmp_path, uri, whole, caplog, monkeypatch
):
    """Three of five copies fail; the run goes on, and the copy is whole in the end."""
    write, count = Manifest.write, []

    def write_some(self, bucket):
        count.append(self)
        # Whoever comes meanwhile reads how long the claim holds.
        (claim,) = bucket.items("leases")
        assert json.loads(b"".join(bucket.read(claim)))["lease_s"] == 5.0
        if 2 <= len(count) <= 4:
            raise StorageError("the store is away")
        write(self, bucket)

    monkeypatch.setattr(Manifest, "write", write_some)
    saved = Mirror.saved

    def waited_for(mirror, every_s=0.0):
        saved(mirror, every_s)
        mirror._thread.join()

    monkeypatch.setattr(Mirror, "saved", waited_for)
    with caplog.at_level(logging.WARNING):
        run_dir = run_study(settings_of(tmp_path / "runs", uri), quiet())
    told = [item for item in caplog.messages if "the store is away" in item]
    assert len(told) == 3
    assert all(item.endswith("tried again with the next checkpoint") for item in told)
    assert_same(run_dir, whole)
    assert newest(Bucket(uri)).complete


def test_a_store_that_stays_away_is_an_error_in_the_end_and_the_run_is_whole(
    tmp_path, uri, whole, monkeypatch
):
    write = Bucket.write

    def write_few(self, key, source, size):
        if key.startswith("files/") and not key.startswith("files/checkpoints"):
            raise StorageError(f"{self.uri}: cannot write {key} (no room)")
        return write(self, key, source, size)

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "write", write_few)
        patched.setattr("repast_dist.farm.storage.mirror._PAUSE_S", 0.0)
        with pytest.raises(StorageError) as error:
            run_study(settings_of(tmp_path / "runs", uri), quiet())
    (run_dir,) = (tmp_path / "runs" / "train").iterdir()
    message = str(error.value)
    assert "files are missing (" in message
    assert "(no room)" in message
    assert f"the run is whole in {run_dir}, and resume={run_dir} copies the rest" in message
    assert "\n" not in message
    assert_same(run_dir, whole)
    before = files_of(run_dir)
    assert resume_study(run_dir, {}, quiet()) == run_dir
    assert files_of(run_dir) == before
    assert set(newest(Bucket(uri)).files) == set(before)


def test_ctrl_c_leaves_a_copy_that_says_how_to_go_on(tmp_path, uri, whole, monkeypatch):
    steps = recorder.RunRecorder.steps

    def interrupted(self, records, rows, solves):
        steps(self, records, rows, solves)
        if records[-1].step >= 4:
            raise KeyboardInterrupt

    console = quiet()
    with monkeypatch.context() as patched:
        patched.setattr(recorder.RunRecorder, "steps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_study(settings_of(tmp_path / "runs", uri), console)
    assert f"Go on, anywhere, with: repast-dist resume={uri}" in console.file.getvalue()
    assert not newest(Bucket(uri)).complete
    went_on = rd.resume(uri, f"run_root={tmp_path / 'elsewhere'}", quiet=True)
    assert went_on.folder.is_relative_to(tmp_path / "elsewhere")
    assert_same(went_on.folder, whole)
