"""What ``benchmarks/gpu_kfac.py`` writes is a baseline and rows of a validation, on any device."""

import importlib.util
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from repast_dist.network.tables import network_table  # noqa: E402
from repast_dist.planning.gpu import GpuTimes  # noqa: E402
from repast_dist.settings import load_settings  # noqa: E402
from repast_dist.studies.validate import validate  # noqa: E402

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_kfac.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_kfac", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["lenet5", "resnet50", "vgg16"])
def test_measured_networks_have_the_parameters_of_their_tables(script, name):
    make, *_ = script.NETWORKS[name]
    with torch.device("meta"):
        model = make()
    assert sum(p.numel() for p in model.parameters()) == network_table(name).parameter_count


def test_preconditioning_with_whole_factors_is_a_solve_with_their_kronecker_product(script):
    """W' = G^-1 W A^-1, with the bias as last column of W."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    inputs, gradients = torch.randn(8, 4), torch.randn(8, 3)
    layer.weight.grad, layer.bias.grad = torch.randn(3, 4), torch.randn(3)
    a, g = script._factors(layer, inputs, gradients, None)
    found = script._precondition(layer, *([script._inverse(f) for f in side] for side in (a, g)))
    rows = torch.cat([inputs, torch.ones(8, 1)], 1)
    damping = script.DAMPING
    big = torch.kron(
        gradients.T @ gradients / 8 + damping * torch.eye(3),
        rows.T @ rows / 8 + damping * torch.eye(5),
    )
    gradient = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1)
    torch.testing.assert_close(found.flatten(), torch.linalg.solve(big, gradient.flatten()))


def test_times_of_the_model_are_fitted_exactly(script):
    times = {n: 2e-6 * n + n**3 / 5e12 for n in (64, 1024, 8192)}
    assert script.inversion_fit(times) == pytest.approx((2e-6, 5e12))


@pytest.mark.slow
def test_the_files_are_a_baseline_and_a_validation(script, tmp_path, monkeypatch):
    options = ["--out", str(tmp_path), "--name", "mine", "--board-w", "65", "--die-mm2", "100"]
    small = ["--device", "cpu", "--network", "lenet5", "--batch", "8", "--largest", "256"]
    monkeypatch.setattr(sys, "argv", ["gpu_kfac.py", *options, *small])
    script.main()
    settings = load_settings(["study=validate_mine", "baseline=mine"], tmp_path)
    assert settings.baseline.board_w.value == 65
    rows = validate(settings.study, settings.machine, settings.epochs).tables["anchors"].to_pylist()
    measured = [row for row in rows if row["subject"].startswith("mine")]
    assert {row["kind"] for row in measured} == {
        "GPU inversion", "GPU K-FAC phase", "GPU K-FAC over first order",
    }  # fmt: skip
    assert all(row["published"] > 0 and row["calculated"] > 0 for row in measured)
    inverse = next(row for row in measured if row["subject"] == "mine 256")
    times = GpuTimes(settings.gpu)
    assert inverse["calculated"] == pytest.approx(times.inverses([256])[0])
