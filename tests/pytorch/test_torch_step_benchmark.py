"""``benchmarks/torch_step.py`` measures what it says: the same step on two devices."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "torch_step.py"


def test_steps_on_a_device_have_the_losses_of_those_on_the_processor():
    spec = importlib.util.spec_from_file_location("torch_step", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu:0")
    inputs = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    (here_s, ours), (there_s, theirs) = (
        script.on_device(script.small_cnn, inputs, where, 1)
        for where in (torch.device("cpu"), device)
    )
    assert min(here_s, there_s) > 0
    assert len(ours) == 2
    assert ours[0] != ours[1]
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
