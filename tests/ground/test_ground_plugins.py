"""Plug-ins run once, from their text, and errors name them."""

import pickle
import subprocess
import sys

import pytest

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.plugins import activate, active, read_plugins

COUNTING = """
import repast_dist.ground.plugins as p
p.times = getattr(p, "times", 0) + 1
class Mine:
    value = 1
"""


def _write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_file_runs_once_until_it_changes(tmp_path, monkeypatch):
    import repast_dist.ground.plugins as plugins

    monkeypatch.setattr(plugins, "times", 0, raising=False)
    path = _write(tmp_path, "my-part.py", COUNTING)
    for _ in range(3):
        activate(read_plugins([path]))
    assert plugins.times == 1
    first = active()
    assert [(item.name, len(item.sha256)) for item in first] == [(path, 64)]
    _write(tmp_path, "my-part.py", COUNTING + "# changed\n")
    activate(read_plugins([path]))
    assert plugins.times == 2
    assert active()[0].sha256 != first[0].sha256


def test_another_process_needs_the_text_only(tmp_path):
    """What a plug-in defines is unpickled where the file does not exist."""
    path = _write(tmp_path, "travels.py", "class Mine:\n    value = 7\n")
    sources = read_plugins([path])
    activate(sources)
    mine = sys.modules["repast_dist_plugin_travels"].Mine()
    (tmp_path / "travels.py").unlink()
    message = pickle.dumps((sources, pickle.dumps(mine)))
    script = (
        "import pickle, sys; from repast_dist.ground.plugins import activate;"
        "sources, mine = pickle.loads(sys.stdin.buffer.read()); activate(sources);"
        "print(pickle.loads(mine).value)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=message, capture_output=True, check=True
    )
    assert done.stdout.strip() == b"7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", "line 1: '\\(' was never closed"),
        ("\nprint(nothing)\n", "line 2: NameError: name 'nothing' is not defined"),
        ("import no_such_module_\n", "line 1: ModuleNotFoundError"),
    ],
)
def test_a_plug_in_that_fails_is_named_with_the_line(tmp_path, text, message):
    path = _write(tmp_path, "bad.py", text)
    with pytest.raises(SettingsError, match=f"plugins: .*bad.py, {message}"):
        activate(read_plugins([path]))
    assert active() == ()


def test_what_does_not_exist_is_named_with_what_is_valid(tmp_path):
    with pytest.raises(SettingsError, match=r"plugins: .*gone.py cannot be read"):
        read_plugins([str(tmp_path / "gone.py")])
    with pytest.raises(SettingsError, match=r"no plug-in 'lab'; valid: the path of a .py file"):
        read_plugins(["lab"])


def test_two_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    first = _write(tmp_path, "same.py", "")
    second = _write(tmp_path / "a", "same.py", "")
    with pytest.raises(SettingsError, match="have the same name"):
        read_plugins([first, second])
