"""The launchers are valid and start what they say, as far as one machine can show."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import psutil
import pytest
import yaml

from repast_dist.api.loading import checked_settings
from repast_dist.batch import added_words
from repast_dist.ground.errors import RepastError
from repast_dist.ground.files import write_json
from repast_dist.ground.spec import to_dict
from repast_dist.settings import load_settings

JOBS = Path(__file__).parents[2] / "jobs"

SCHEMA = Path(__file__).with_name("kuberay_rayjob_schema.yaml")


@pytest.fixture
def manifest():
    return yaml.safe_load((JOBS / "kuberay-rayjob.yaml").read_text())


def closed(schema):
    """Return a schema that refuses fields it does not know, which Kubernetes drops silently."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    own = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        own.setdefault("additionalProperties", False)
    return own


def mistakes(manifest):
    """Return where a manifest does not follow the operator's schema, as dotted paths."""
    schema = closed(yaml.safe_load(SCHEMA.read_text()))
    # What every Kubernetes object has is declared elsewhere.
    schema["properties"]["metadata"].pop("additionalProperties", None)
    found = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    return [".".join(map(str, error.absolute_path)) for error in found]


def test_the_kuberay_manifest_follows_the_published_schema(manifest):
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert mistakes(manifest) == []
    spec = manifest["spec"]
    # What the operator's schema leaves to the operator.
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_names_of_volumes_that_containers_mount_are_there(manifest):
    cluster = manifest["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.entryPoint", "python"),
        ("spec.ttlSecondsAfterFinished", "ten minutes"),
        ("spec.rayClusterSpec.authOptions.mode", "password"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.replica", 2),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.resource", {}),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
    ],
)
def test_a_mistake_in_the_kuberay_manifest_is_found(manifest, path, value):
    *folders, last = path.split(".")
    place = manifest
    for name in folders:
        place = place[int(name) if isinstance(place, list) else name]
    place[last] = value
    (where,) = mistakes(manifest)
    assert path.startswith(where)


def test_the_kuberay_cluster_asks_for_a_token(manifest):
    assert manifest["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_settings_in_the_kuberay_entry_point_are_valid(manifest):
    words = manifest["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "repast_dist.cli"]
    assert load_settings(words[3:]).farm.address == "auto"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["local.sh", "ray_job_submit.sh", "slurm.sbatch"])
def test_shell_scripts_pass_shellcheck(name):
    done = subprocess.run(
        ["shellcheck", "--severity=style", str(JOBS / name)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["local.sh", "ray_job_submit.sh", "slurm.sbatch"])
def test_launchers_are_executable_or_batch_scripts(name):
    path = JOBS / name
    assert path.read_text().startswith("#!/usr/bin/env bash")
    assert name.endswith(".sbatch") or os.access(path, os.X_OK)


def test_a_launcher_without_its_required_settings_says_what_is_missing():
    bare = {"PATH": os.environ["PATH"]}
    script = str(JOBS / "ray_job_submit.sh")
    done = subprocess.run([script], env=bare, capture_output=True, text=True)
    assert done.returncode != 0
    assert "RAY_ADDRESS" in done.stderr


CLUSTER = ["farm.address=n1:20001", "farm.nodes=2", "farm.node_timeout_s=600"]


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (["farm.chips=2"], ["farm=cluster", *CLUSTER]),
        (["study=effects"], ["farm=cluster", *CLUSTER]),
        # In this process, unless it is told otherwise.
        (["study=scaling", "workload=lenet5"], []),
        (["study=scaling", "workload=lenet5", "farm=cluster"], CLUSTER),
        (["farm=cluster", "farm.placement=pack"], CLUSTER),
        (["farm=inprocess"], []),
        (["study=effects", "farm.backend=inprocess"], []),
        (["study=headline"], []),
        (["study=plan", "workload=lenet5", "hydra.run.dir=runs/7"], []),
        (["-m", "farm.backend=inprocess,ray"], ["farm=cluster", *CLUSTER]),
        (["study=plan", "-m", "workload=lenet5,vgg13"], []),
    ],
)  # fmt: skip
def test_a_batch_script_starts_nodes_for_runs_that_use_them(words, added):
    assert added_words(words, "n1:20001", 2) == added
    if "-m" not in words:
        plain = [word for word in words if not word.startswith("hydra.")]
        # What is added is read by the study, and so is not refused.
        assert checked_settings([*plain, *added]).farm.nodes == (2 if added else None)


def test_a_batch_script_asks_the_directory_of_a_run_that_goes_on(tmp_path):
    for words, added in (
        (["farm.chips=2"], CLUSTER),
        (["farm=inprocess"], []),
        (["study=headline"], []),
    ):
        write_json(tmp_path / "settings.json", to_dict(load_settings(words)))
        assert added_words([f"resume={tmp_path}", "farm.chips=2"], "n1:20001", 2) == added
    with pytest.raises(RepastError, match=r"settings.json: not readable"):
        added_words([f"resume={tmp_path / 'none'}"], "n1:20001", 2)


def test_wrong_settings_are_told_before_nodes_are_started():
    done = subprocess.run(
        [sys.executable, "-m", "repast_dist.batch", "n1:20001", "2", "farm.chips=x"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("repast-dist: error: farm.chips: ")
    assert done.stderr.count("\n") == 1


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_job_submitted_to_a_local_head_trains_and_leaves_a_run_directory(tmp_path):
    """A head with a dashboard on loopback, a token, and the script that submits."""
    bin_dir = Path(sys.executable).parent
    (tmp_path / "token").write_text("a" * 64)
    dashboard, port = _free_port(), 6380 + os.getpid() % 3000
    environment = os.environ | {
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "REPAST_PYTHON": sys.executable,
        "REPAST_RUNS": str(tmp_path / "runs"),
        "OMP_NUM_THREADS": "1",
    }
    start = [
        "ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
        "--node-ip-address=127.0.0.2", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", f"--temp-dir=/tmp/rj{os.getpid()}",
        "--object-store-memory=200000000",
        # The test session's own cluster has the usual port.
        f"--dashboard-agent-listen-port={_free_port()}",
    ]  # fmt: skip
    environment_of_head = {k: v for k, v in environment.items() if k != "RAY_ADDRESS"}
    head = subprocess.Popen(
        start, env=environment_of_head, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        _wait_for_port(dashboard)
        settings = ["farm.chips=2", "train.epochs=1", "train.max_steps=2", "model=digits_mlp"]
        done = _submit(settings, environment)
        assert done.returncode == 0, done.stdout + done.stderr
        results = list((tmp_path / "runs").glob("train/*/result.json"))
        assert len(results) == 1
        assert '"status": "finished"' in results[0].read_text()
    finally:
        family = [head, *psutil.Process(head.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                process.kill()
        head.wait(timeout=30)
        shutil.rmtree(f"/tmp/rj{os.getpid()}", ignore_errors=True)


def _submit(settings, environment, limit_s=90):
    """Submit; a head that has just started says for a while that it has no agent yet."""
    deadline = time.monotonic() + limit_s
    while True:
        done = subprocess.run(
            [str(JOBS / "ray_job_submit.sh"), *settings],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2.0)


def _wait_for_port(port, limit_s=240):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"nothing answers at port {port}")
