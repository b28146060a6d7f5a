"""What README and docs/pytorch.md show runs as it stands."""

import re
import shlex
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from repast_dist.cli import main  # noqa: E402
from repast_dist.ground import user_code  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_folder")
ROOT = Path(__file__).parents[2]


def blocks(document):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)


def commands(document):
    """Return the words of each command that trains modules of a user's own."""
    shown = re.findall(
        r"^repast-dist (model\.factory.*(?:\n +.*)*)", (ROOT / document).read_text(), re.M
    )
    return [shlex.split(text.replace("\\\n", " ")) for text in shown]


SHOWN = [
    (document, folder, words)
    for document, folder in (("README.md", "."), ("docs/pytorch.md", "jobs"))
    for words in commands(document)
]
OWN = {"my_lab": "conv1.weight", "my_gpt": "embed.weight"}


def test_both_pages_show_commands():
    assert [document for document, _, _ in SHOWN] == ["README.md", *["docs/pytorch.md"] * 2]


@pytest.mark.parametrize(("document", "folder", "words"), SHOWN)
def test_the_commands_for_modules_on_the_farm_work(document, folder, words, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / folder)
    monkeypatch.setattr(user_code, "_TAKEN", {})
    monkeypatch.setattr(user_code, "_OF_PLACE", {})
    less = ["train.max_steps=2", "dataset.test_samples=16", "farm.backend=inprocess"]
    assert main([*words, *less, f"run_root={tmp_path}"]) == 0
    (found,) = tmp_path.glob("train/*/checkpoints/step-00000002/model.safetensors")
    (file,) = (name for name in OWN if name in words[0])
    assert OWN[file] in load_file(found)


def test_the_example_of_the_readme_runs():
    (shown,) = (block for block in blocks("README.md") if "repast_dist.torch" in block)
    assert len([line for line in shown.splitlines() if line]) <= 12
    torch.manual_seed(0)
    names = {}
    exec(compile(shown, "README.md", "exec"), names)
    assert names["optimizer"].costs.num_rows > 0
    assert "trained with K-FAC" in Path("page.html").read_text()


def test_the_page_runs_from_top_to_bottom():
    names = {}
    for block in blocks("docs/pytorch.md"):
        exec(compile(block, "docs/pytorch.md", "exec"), names)
    assert names["optimizer"].costs.num_rows > 0
    assert names["state"]["param_groups"][0]["lr"] < 0.02
    assert Path("page.html").is_file()
