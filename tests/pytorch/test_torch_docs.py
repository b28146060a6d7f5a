"""What README and docs/pytorch.md show runs as it stands."""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("own_folder")
ROOT = Path(__file__).parents[2]


def blocks(document):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)


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
