import signal
import time

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
@pytest.mark.parametrize("path", ["llvmlite/binding/executionengine.py", "python/argparse.py"])
def test_a_signal_where_its_exception_would_be_lost_interrupts_a_moment_later(path):
    names = {}
    exec(compile(ENDS, f"/somewhere/{path}", "exec"), names)
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
