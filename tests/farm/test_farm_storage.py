"""Copies of directories in a store: whole at any moment, of one writer, and refused if damaged."""

import contextlib
import itertools
import json
import random
import threading
import time
from pathlib import Path

import pytest

from repast_dist.farm.storage.bucket import Bucket
from repast_dist.farm.storage.fetch import fetch
from repast_dist.farm.storage.lease import Lease
from repast_dist.farm.storage.manifest import Manifest, manifest_keys, newest
from repast_dist.farm.storage.mirror import Mirror
from repast_dist.ground.errors import SettingsError, StorageError
from repast_dist.settings import load_settings


class Dead(StorageError):
    """What a process that was killed would have done is not done."""


class Counted(Bucket):
    """A store whose client is killed before one of its operations, or in the middle of it."""

    def __init__(self, uri: str, lives: float = float("inf"), half: bool = False) -> None:
        super().__init__(uri)
        self.lives, self.half, self.written = lives, half, []
        self._one = threading.Lock()

    def _live(self) -> bool:
        with self._one:
            self.lives -= 1
            return self.lives >= 0

    def write(self, key, source, size):
        if not self._live():
            if self.half and self.lives == -1:
                super().write(key, source, size // 2)
            raise Dead(key)
        self.written.append(key)
        return super().write(key, source, size)

    def delete(self, keys):
        for key in list(keys):
            if not self._live():
                raise Dead(key)
            super().delete([key])


@pytest.fixture
def uri(tmp_path) -> str:
    return f"file://{tmp_path / 'store' / 'run'}"


def at_version(folder: Path, version: int) -> dict[str, bytes]:
    """Make a directory what a run has made of it after some checkpoints; return its files."""
    files = {"settings.json": b"{}", "result.json": b"%d" % version * 3}
    files["log"] = b"".join(b"line %d\n" % number for number in range(version))
    for number in (version - 1, version):
        files[f"checkpoints/step-{number}/arrays.npz"] = b"weights %d" % number
    for path in list(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            aside = folder / ".aside.tmp"
            aside.write_bytes(content)
            aside.replace(path)
    return files


def copy_of(uri: str, folder: Path) -> dict[str, bytes]:
    """Fetch a copy; return its files."""
    folder.mkdir()
    fetch(Bucket(uri), folder, lambda _: None)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def mirror_of(bucket: Bucket, folder: Path, base: Manifest | None = None) -> tuple[Mirror, Lease]:
    lease = Lease(bucket, 60.0, lambda _: None)
    return Mirror(bucket, lease, folder, "train", base, lambda _: None), lease


def wait_for_copy(mirror: Mirror) -> None:
    mirror._thread.join()


@pytest.mark.parametrize("half", [False, True], ids=["before", "within"])
def test_a_kill_at_any_operation_leaves_a_whole_copy_of_some_checkpoint(tmp_path, half):
    """Every operation on the store is tried; a run that goes on then cleans up what was left."""
    folder = tmp_path / "run"
    whole = {number: at_version(tmp_path / f"as-{number}", number) for number in range(1, 4)}

    def copy_three(bucket: Bucket) -> None:
        mirror, lease = mirror_of(bucket, folder)
        with lease.held():
            for number in (1, 2):
                at_version(folder, number)
                mirror.saved()
                wait_for_copy(mirror)
            at_version(folder, 3)
            mirror._copy(mirror._snapshot(), complete=True)

    for lives in itertools.count(2):
        uri = f"file://{tmp_path / f'store-{lives}'}"
        bucket = Counted(uri, lives, half)
        with contextlib.suppress(StorageError):
            copy_three(bucket)
        if bucket.lives >= 0:
            break
        arrived = [key for key in bucket.written if key.startswith("manifests/")]
        if not arrived:
            continue
        files = copy_of(uri, tmp_path / f"copy-{lives}")
        assert files == whole[len(arrived)]
        # The next process goes on, and nothing is left that its copy does not name.
        after = Bucket(uri)
        after.delete(after.items("leases"))
        base = newest(after)
        mirror, lease = mirror_of(after, folder, base)
        with lease.held():
            assert lease.term > base.term
            at_version(folder, 3)
            mirror.finish(complete=True)
        assert copy_of(uri, tmp_path / f"again-{lives}") == whole[3]
        named = {item.key for item in newest(after).files.values()}
        assert set(after.items("files")) == named
        assert len(manifest_keys(after)) == 1
    assert lives > 20


def test_only_what_has_changed_is_copied(tmp_path, uri):
    folder = tmp_path / "run"
    bucket = Counted(uri)
    mirror, lease = mirror_of(bucket, folder)
    with lease.held():
        at_version(folder, 1)
        mirror.saved()
        wait_for_copy(mirror)
        bucket.written.clear()
        at_version(folder, 2)
        mirror.saved()
        wait_for_copy(mirror)
        names = sorted(Path(key).name.split(".")[0] for key in bucket.written if "files" in key)
        # Neither the settings nor the checkpoint that was there before.
        assert names == ["log", "result", "step-2"]
        bucket.written.clear()
        mirror.finish(complete=True)
        assert [key.split("/")[0] for key in bucket.written] == ["manifests"]


def test_what_grows_while_it_is_copied_is_copied_as_it_was(tmp_path, uri):
    folder = tmp_path / "run"
    expected = at_version(folder, 2)
    mirror, lease = mirror_of(Bucket(uri), folder)
    with lease.held():
        snapshot = mirror._snapshot()
        with (folder / "log").open("ab") as log:
            log.write(b"later\n")
        at_version(folder, 3)
        mirror._copy(snapshot, complete=False)
    assert copy_of(uri, tmp_path / "copy") == expected


@pytest.mark.parametrize("what", ["files", "manifests"])
@pytest.mark.parametrize("damage", ["gone", "changed", "cut off"])
def test_a_damaged_copy_is_refused_and_the_one_before_is_taken(tmp_path, uri, what, damage):
    folder = tmp_path / "run"
    mirror, lease = mirror_of(Bucket(uri), folder)
    before = at_version(folder, 1)
    with lease.held():
        mirror.saved()
        wait_for_copy(mirror)
        at_version(folder, 2)
        mirror.saved()
        wait_for_copy(mirror)
    store = tmp_path / "store" / "run"
    last = newest(Bucket(uri))
    assert last.number == 2
    damaged = store / (last.key if what == "manifests" else last.files["result.json"].key)
    content = damaged.read_bytes()
    damaged.unlink()
    if damage != "gone":
        changed = content[:-2] if damage == "cut off" else content[:-2] + b"#" + content[-1:]
        damaged.write_bytes(changed)
    reasons = []
    (tmp_path / "copy").mkdir()
    fetch(Bucket(uri), tmp_path / "copy", reasons.append)
    assert (tmp_path / "copy" / "result.json").read_bytes() == before["result.json"]
    assert not list((tmp_path / "copy").rglob("step-2"))
    assert (len(reasons) == 1) == (not (what == "manifests" and damage == "gone"))


def test_a_manifest_cannot_name_files_outside_of_the_run(tmp_path, uri):
    bucket = Bucket(uri)
    for name, key in (("../../evil", "files/a"), ("/etc/evil", "files/a"), ("a", "../b")):
        mirror, lease = mirror_of(bucket, tmp_path / "run")
        at_version(tmp_path / "run", 1)
        with lease.held():
            mirror.finish(complete=False)
        made = newest(bucket)
        item = next(iter(made.files.values()))
        odd = {**made.files, name: type(item)(key, item.size, item.sha256)}
        Manifest(**{**vars(made), "number": 9, "files": odd}).write(bucket)
        (tmp_path / "in").mkdir(exist_ok=True)
        reasons = []
        fetch(bucket, tmp_path / "in", reasons.append)
        assert "outside of the run" in reasons[0]
        bucket.delete(manifest_keys(bucket))


def test_of_many_that_want_a_prefix_one_has_it_at_a_time(uri):
    """Twelve processes, as threads, that come at random moments; terms tell their order."""
    inside, most, terms, refused = [0], [0], [], []
    one = threading.Lock()

    def take() -> None:
        time.sleep(random.random() * 0.2)
        lease = Lease(Bucket(uri), 0.8, lambda _: None)
        try:
            with lease.held():
                with one:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    terms.append(lease.term)
                time.sleep(0.05)
                with one:
                    inside[0] -= 1
        except StorageError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(terms) + len(refused) == 12
    assert terms


def test_a_run_that_goes_on_keeps_its_prefix(uri):
    said = []
    with Lease(Bucket(uri), 1.0, said.append).held():
        with (
            pytest.raises(StorageError, match=r"in use by process \d+ on .*; valid: another"),
            Lease(Bucket(uri), 1.0, said.append).held(),
        ):
            pass
        assert "waiting for up to" in said[0]


def test_a_run_that_was_held_up_too_long_notices_that_another_went_on(tmp_path, uri, monkeypatch):
    folder = tmp_path / "run"
    files = at_version(folder, 1)
    mirror, lease = mirror_of(Bucket(uri), folder)
    lease._lease_s = 0.3
    # Held up: it does not renew its claim.
    monkeypatch.setattr(lease, "_renew", lambda: None)
    with lease.held():
        mirror.saved()
        wait_for_copy(mirror)
        time.sleep(0.4)
        other = tmp_path / "other"
        newer = at_version(other, 2)
        mirror2, lease2 = mirror_of(Bucket(uri), other, newest(Bucket(uri)))
        with lease2.held():
            mirror2.saved()
            wait_for_copy(mirror2)
            at_version(folder, 3)
            with pytest.raises(StorageError, match="has taken it over; nothing more is copied"):
                mirror.finish(complete=True)
            # Even what it writes in the moment between is older by name.
            late = Manifest(**{**vars(mirror._last), "number": 99})
            late.write(Bucket(uri))
            assert newest(Bucket(uri)).owner == lease2.owner
    assert copy_of(uri, tmp_path / "copy") == newer != files


ODD = {
    "nan": "input should be a valid string",
    "''": "is no URI of a store",
    "runs": "is no URI of a store",
    "http://bucket/run": "is no URI of a store",
    "s3:bucket": "is no URI of a store",
    "'s3:///run'": "names no bucket",
    "s3://bucket": "names no folder",
    "s3://bucket/a/../b": "names no folder",
    "'s3://bucket/a//b'": "names no folder",
    "'s3://bucket/a#b'": "names no folder",
    "'s3://bucket/a b'": "spaces",
    "'s3://bucket:x/a'": "is no URI",
    "'s3://[/a'": "is no URI",
    "'s3://key:secret@bucket/a'": "keys do not belong into the URI; valid: AWS_ACCESS_KEY_ID",
    "file://elsewhere/run": "is on another machine",
    "3": "input should be a valid string",
}


@pytest.mark.parametrize("text", ODD)
def test_odd_uris_are_refused_in_one_line(text):
    with pytest.raises(SettingsError) as error:
        load_settings([f"storage.uri={text}"])
    message = str(error.value)
    assert message.startswith("storage")
    assert ODD[text] in message
    assert "\n" not in message
    assert "secret" not in message


def test_what_a_store_does_not_know_is_refused_in_one_line():
    with pytest.raises(SettingsError, match=r"^storage.uri: .*colour") as error:
        Bucket("s3://bucket/run?colour=red")
    assert "\n" not in str(error.value)


def test_another_version_of_the_layout_is_not_guessed_at(tmp_path, uri):
    mirror, lease = mirror_of(Bucket(uri), tmp_path / "run")
    at_version(tmp_path / "run", 1)
    with lease.held():
        mirror.finish(complete=True)
    path = tmp_path / "store" / "run" / newest(Bucket(uri)).key
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "version": 2}))
    with pytest.raises(StorageError, match=r"no whole copy of a run is there\n.*damaged"):
        newest(Bucket(uri))
