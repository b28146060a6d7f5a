"""Ray's own page of a run: its address and token are printed, and it opens with them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from browser import CHROMIUM, Browser

from repast_dist.ground.errors import SettingsError
from repast_dist.settings import load_settings

WORDS = (
    "model=digits_mlp", "engine=float64", "optimizer=sgd", "farm.chips=1", "train.epochs=100000",
    "farm.checkpoint_every=1000", "farm.dashboard=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    """A run on Ray that goes on for as long as it is looked at: address and token."""
    root = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "repast_dist.cli", *WORDS, f"run_root={root}"]
    ours = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "REPAST_DIST_SHARED_RAY")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    run = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        for line in run.stderr:
            if said := re.match(
                r"Ray's dashboard, .*: (http://\S+) asks for the token (\w+)", line
            ):
                yield said.groups()
                break
        else:
            pytest.fail(f"no address was printed, exit status {run.wait()}")
    finally:
        # Twice: a page of all steps is not wanted.
        run.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=300)
        shutil.rmtree(root)


def status(url, token=""):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.ray
@pytest.mark.slow
def test_the_printed_token_and_no_other_is_let_in(dashboard):
    address, token = dashboard
    assert address.startswith("http://127.0.0.1:")
    assert status(f"{address}/") == 200
    nodes = f"{address}/nodes?view=summary"
    assert status(nodes) == 401
    assert status(nodes, "0" * len(token)) == 403
    assert status(nodes, token) == 200


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_opens_with_the_printed_token(dashboard):
    address, token = dashboard
    with Browser(120) as browser:
        browser.visit(address, "/token/i.test(document.body?.innerText)")
        # What its dialogue does with what is typed into it.
        headers = {"Authorization": f"Bearer {token}"}
        login = f"fetch('/api/authenticate', {{method: 'POST', headers: {headers}}})"
        assert browser.evaluate(f"{login}.then(answer => answer.status)") == 200
        browser.visit(f"{address}/#/cluster", "/127\\.0\\.0\\.2/.test(document.body?.innerText)")


def test_a_cluster_that_is_attached_to_has_its_own():
    words = ["farm.dashboard=true", "farm.address=127.0.0.1:6379"]
    with pytest.raises(SettingsError, match=r"^farm: dashboard: .*valid: farm\.address=local"):
        load_settings(words)
