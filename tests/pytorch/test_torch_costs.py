"""What a step is priced with is what the arrays did, and what the same network costs elsewhere."""

import collections
import json

import pyarrow.compute as pc
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from test_torch_numpy_engine import both  # noqa: E402
from torch import nn  # noqa: E402

import repast_dist.torch as rt  # noqa: E402
from repast_dist.trace import SCHEMA, read_trace, totals  # noqa: E402
from repast_dist.trace.schema import COUNTS  # noqa: E402


def counts(table):
    """(op, count) -> total; rows of seconds are left out."""
    found = collections.Counter()
    for name in COUNTS:
        if name == "amplifier_s":
            continue
        for op, value in zip(
            table["op"].cast("string").to_pylist(), table[name].to_pylist(), strict=True
        ):
            found[op, name] += value
    return {key: value for key, value in found.items() if value}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_a_step_costs_what_it_does_in_the_numpy_engine(train, name):
    _, _, run, optimizer = both(train, name, "chip=small", "chip.adc.calibrated_on=call")
    theirs, ours = counts(read_trace(run / "trace")), counts(optimizer.costs)
    if name == "digits_cnn":
        assert ours == theirs
        assert totals(optimizer.costs).energy_j == pytest.approx(
            json.loads((run / "result.json").read_text())["totals"]["energy_j"], rel=1e-9
        )
        return
    # PyTorch adds residuals and divides scores by constants in operations of its own.
    digital = ("digital_ops", "buffer_bytes")
    products = {key: value for key, value in ours.items() if key[1] not in digital}
    assert products == {key: value for key, value in theirs.items() if key[1] not in digital}
    for one in ("elementwise_forward", "elementwise_backward"):
        assert ours[one, "digital_ops"] == pytest.approx(theirs[one, "digital_ops"], rel=0.1)


NETWORKS = {
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3), nn.ReLU(),
            nn.Flatten(), nn.Linear(216, 4),
        ),
        (8, 1, 8, 8),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(),
            nn.Flatten(), nn.Linear(216, 4),
        ),
        (8, 1, 8, 8),
    ),
    "tied": (lambda: Tied(), (8, 5)),
    "recurrent": (
        lambda: nn.Sequential(nn.LSTM(5, 6, batch_first=True), Last(), nn.Linear(6, 4)),
        (8, 7, 5),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.Tanh(), nn.ConvTranspose2d(4, 2, 2, 2), nn.Flatten(),
            nn.Linear(128, 4),
        ),
        (8, 1, 8, 8),
    ),
    "attention": (
        lambda: nn.Sequential(
            nn.Linear(6, 8), nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True),
            nn.Flatten(), nn.Linear(40, 4),
        ),
        (8, 5, 6),
    ),
}  # fmt: skip


class Tied(nn.Module):
    """Numbers and tokens; the output layer has the weights of the tokens' embedding."""

    def __init__(self):
        super().__init__()
        self.front, self.hidden = nn.Linear(5, 8), nn.Linear(8, 8)
        self.embed = nn.Embedding(4, 8)
        self.head = nn.Linear(8, 4, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        both = self.front(x) + self.embed((x > 0).long()).mean(dim=1)
        return self.head(torch.tanh(self.hidden(both)))


class Last(nn.Module):
    """The last step of a sequence."""

    def forward(self, x):
        return x[0][:, -1]


@pytest.mark.parametrize("kind", NETWORKS)
def test_conversions_that_are_priced_are_those_that_arrays_made(kind):
    make, shape = NETWORKS[kind]
    torch.manual_seed(0)
    network = rt.convert(make(), chip="small")
    optimizer = rt.KFAC(network, lr=0.01)
    meter = rt.conversion(network).simulation.engine.meter
    for _ in range(2):
        loss = F.cross_entropy(network(torch.randn(shape)), torch.randint(0, 4, shape[:1]))
        (loss / 2).backward()
    optimizer.step()
    made = collections.Counter()
    for what, count in meter.take().items():
        made[what.split()[0]] += count.conversions
    priced = collections.Counter()
    of = {"vmm_forward": "forward", "vmm_backward": "backward", "vmm_fisher": "backward",
          "vmm_gradient": "gradient", "operand_fisher": "gradient",
          "factor_a": "factor", "factor_g": "factor"}  # fmt: skip
    for row in optimizer.costs.select(["op", "adc_conversions"]).to_pylist():
        if row["op"] in of:
            priced[of[row["op"]]] += row["adc_conversions"]
    assert made["forward"] > 0
    assert dict(priced) == dict(made)


def test_layers_that_are_not_trained_cost_neither_writes_nor_gradients():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    network[0].requires_grad_(False)
    network[2].requires_grad_(False)
    rt.convert(network, chip="small")
    optimizer = rt.KFAC(network, lr=0.01)
    meter = rt.conversion(network).simulation.engine.meter
    F.cross_entropy(network(torch.randn(8, 6)), torch.randint(0, 3, (8,))).backward()
    optimizer.step()
    made = meter.take()
    rows = optimizer.costs.select(["op", "layer", "adc_conversions"]).to_pylist()
    layers = {
        op: {row["layer"] for row in rows if row["op"] == op}
        for op in ("vmm_forward", "vmm_backward", "vmm_gradient", "write_weights")
    }
    assert layers == {
        "vmm_forward": {0, 1, 2}, "vmm_backward": set(), "vmm_gradient": {2}, "write_weights": {2}
    }  # fmt: skip
    assert {what for what in made if "backward" in what or "gradient" in what} == {"gradient 4"}
    assert made["gradient 4"].conversions == sum(
        row["adc_conversions"] for row in rows if row["op"] == "vmm_gradient"
    )


def test_the_table_of_costs_is_a_trace():
    network = nn.Linear(6, 3)
    optimizer = rt.KFAC(network, lr=0.1, chips=2)
    for _ in range(3):
        F.cross_entropy(network(torch.randn(8, 6)), torch.randint(0, 3, (8,))).backward()
        optimizer.step()
    table = optimizer.costs
    assert table.schema.equals(SCHEMA)
    assert sorted(set(table["step"].to_pylist())) == [0, 1, 2]
    assert pc.min(table["duration_s"]).as_py() >= 0
    assert set(table["chip"].to_pylist()) == {0, 1}
    assert totals(table).steps == 3
