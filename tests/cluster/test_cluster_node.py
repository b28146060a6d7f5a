"""Ray on one machine, without a token and before there is a head."""

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from repast_dist.farm.cluster import TOKENS
from repast_dist.farm.node import main


def test_a_node_without_a_token_is_refused(monkeypatch, capsys):
    for name in TOKENS:
        monkeypatch.delenv(name, raising=False)
    assert main(["head"]) == 2
    assert "valid: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_node_waits_for_its_head_until_it_is_told_to_stop():
    # Bound but not listening: it refuses connections, and nobody else gets it.
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        node = subprocess.Popen(
            [sys.executable, "-m", "repast_dist.farm.node", address],
            env=os.environ | {"RAY_AUTH_TOKEN": "d" * 64},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert f"Waiting for a head at {address}" in node.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            node.wait(timeout=2.0)
        assert psutil.Process(node.pid).children() == []
        node.send_signal(signal.SIGTERM)
        assert node.communicate(timeout=60) == (None, "")
        assert node.returncode == 0
