import signal
import threading
import time
from pathlib import Path

import pytest

from repast_dist import cli
from repast_dist.ground.interrupts import interrupt

ENDS = "import signal\ndef ends():\n    signal.raise_signal(signal.SIGTERM)\n"


@pytest.fixture
def handled():
    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handled")
def test_a_signal_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize(
    "path",
    ["/llvmlite/binding/ffi.py", "/argparse.py", "/omegaconf/base.py", "<frozen importlib._b>"],
)
def test_a_signal_where_its_exception_would_be_lost_interrupts_a_moment_later(path):
    names = {}
    exec(compile(ENDS, path, "exec"), names)
    names["ends"]()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


@pytest.mark.usefixtures("handled")
def test_a_signal_in_this_package_interrupts_whoever_has_called_it():
    names = {"interrupted": at_once}
    exec(compile("def imported():\n    interrupted()\n", "<frozen importlib._b>", "exec"), names)
    with pytest.raises(KeyboardInterrupt):
        names["imported"]()


def at_once():
    names = {}
    exec(compile(ENDS, f"{Path(cli.__file__).parent}/some.py", "exec"), names)
    names["ends"]()


@pytest.mark.usefixtures("handled")
def test_a_signal_while_another_is_put_off_is_the_same(monkeypatch):
    begin = threading.Timer.start

    def start(timer):
        signal.raise_signal(signal.SIGTERM)
        begin(timer)

    monkeypatch.setattr(threading.Timer, "start", start)
    names = {}
    exec(compile(ENDS, "/llvmlite/binding/ffi.py", "exec"), names)
    names["ends"]()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


def test_ctrl_c_while_the_words_are_read_and_while_it_is_told_is_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parsed", interrupted)
    assert cli.main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr("sys.stderr.isatty", interrupted)
    assert cli.main([]) == 130
    assert capsys.readouterr().err == ""
