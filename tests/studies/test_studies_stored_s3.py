"""A run on a server that speaks S3: killed for good, gone on with by another process elsewhere.

The server is moto, from PyPI (the extra ``oracles``), in a process of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import final_arrays

from repast_dist.farm.storage.bucket import Bucket
from repast_dist.farm.storage.manifest import newest
from repast_dist.studies.verify import findings
from repast_dist.trace import read_solves, read_trace

pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 8
SETTINGS = (
    "model=digits_mlp", "train.batch_size=32", f"train.max_steps={STEPS}", "train.epochs=1",
    "farm.checkpoint_every=2", "farm.chips=2", "farm.backend=inprocess",
    "dataset.test_fraction=0.03", "soi.block_size=40",
)  # fmt: skip

# Ends the process as a kill does once the files of a checkpoint are there and its manifest is not.
KILLED = """
import os, signal, sys
from repast_dist.cli import main
from repast_dist.farm.storage.manifest import Manifest
from repast_dist.farm.storage.mirror import Mirror
write, saved = Manifest.write, Mirror.saved
def write_some(self, bucket):
    if self.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, bucket)
def waited_for(self, every_s=0.0):
    saved(self, every_s)
    self._thread.join()
Manifest.write, Mirror.saved = write_some, waited_for
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def server():
    """A server with a bucket; yields the environment that leads there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        deadline = time.monotonic() + 120
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "the server does not answer"
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
        with pytest.MonkeyPatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"]).create_bucket(
                Bucket="lab"
            )
            yield environment["AWS_ENDPOINT_URL"]
    finally:
        process.kill()
        process.wait()


def command(
    folder: Path, *words: str, status: int = 0, program: Sequence[str] = ("-m", "repast_dist.cli")
) -> str:
    """Run the command in a folder of a machine that has nothing else; return what it prints."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *program, *words],
        cwd=folder, env=os.environ, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def test_a_killed_run_goes_on_on_another_machine_with_the_same_bits(server, tmp_path):
    uri = "s3://lab/runs/one"
    command(tmp_path / "whole", *SETTINGS)
    (whole,) = tmp_path.glob("whole/runs/train/*")
    words = [*SETTINGS, f"storage.uri={uri}", "storage.lease_s=5"]
    command(tmp_path / "first", *words, status=-signal.SIGKILL, program=("-c", KILLED))
    last = newest(Bucket(uri))
    assert (last.number, last.complete) == (2, False)
    # Files of the checkpoint that was under way have arrived, and nobody reads them.
    named = {item.key for item in last.files.values()}
    assert set(Bucket(uri).items("files")) - named
    told = command(tmp_path / "second", f"resume={uri}")
    (run_dir,) = tmp_path.glob("second/runs/train/*")
    assert "at step 2" in told
    assert final_arrays(run_dir) == final_arrays(whole)
    assert read_trace(run_dir / "trace").equals(read_trace(whole / "trace"))
    assert read_solves(run_dir).equals(read_solves(whole))
    assert not list(findings(run_dir))
    losses = [
        [item["loss"] for item in json.loads((run / "result.json").read_text())["steps"]]
        for run in (run_dir, whole)
    ]
    assert losses[0] == losses[1]
    last = newest(Bucket(uri))
    assert last.complete
    assert set(Bucket(uri).items("files")) == {item.key for item in last.files.values()}


def test_parameters_of_the_uri_lead_to_another_store(server, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    uri = f"s3://lab/runs/two?endpoint_override={server}&region=us-east-1"
    run = tmp_path / "first"
    told = command(run, *SETTINGS, "optimizer=sgd", "engine=float64", f"storage.uri='{uri}'")
    assert f"Copy:          {uri}" in told
    (run_dir,) = run.glob("runs/train/*")
    told = command(tmp_path / "second", "study=verify", f"study.run='{uri}'")
    assert f"complete; {STEPS} steps" in told
    (fetched,) = tmp_path.glob("second/runs/train/*")
    assert final_arrays(fetched) == final_arrays(run_dir)


def test_a_bucket_that_is_not_there_is_told_in_one_line(server, tmp_path):
    told = command(tmp_path / "none", *SETTINGS, "storage.uri=s3://none/run", status=1)
    assert told.count("\n") == 1
    assert told.startswith("repast-dist: error: s3://none/run: cannot ")
