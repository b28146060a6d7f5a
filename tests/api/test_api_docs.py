"""docs/python.md runs as it stands, from the first block to the last, and keeps its promises."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("own_folder")

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, str(DOCUMENT), "exec"), names)
    shown = capsys.readouterr().out
    assert "farm.chps: unknown setting; did you mean 'chips'?" in shown
    assert names["finer"].chip.adc.bits == 10
    assert names["solved"].converged.all()
    once = names["rd"].solve(
        names["factor"], names["right_hand_sides"], names["hardware"], "single", damping=0.1
    )
    # A second settling adds bits, but not those that a scheme for 16 bits reaches.
    assert (once.bits < names["mine"].bits).all()
    assert names["mine"].bits.max() < names["solved"].bits.min()
    assert names["again"].figures == names["run"].figures
    assert names["sweep"].table["farm.chips"].to_pylist() == [1, 2]
    outputs, exact = names["outputs"], names["inputs"] @ names["weights"]
    assert np.linalg.norm(outputs - exact) / np.linalg.norm(exact) < 0.1
