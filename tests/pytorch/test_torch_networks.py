"""Networks of the kinds that people train learn on the simulated arrays, in a few steps."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import Gpt, ResNet20, TextLstm, UNet, depthwise_net, windows  # noqa: E402

import repast_dist as rd  # noqa: E402
import repast_dist.torch as rt  # noqa: E402
from repast_dist.training.datasets.digits import Digits  # noqa: E402


@pytest.fixture(scope="module")
def hardware():
    return rd.load_hardware("small")


@pytest.fixture(scope="module")
def digits():
    data = Digits().load()
    return torch.from_numpy(data.train_inputs).float(), torch.from_numpy(data.train_labels)


def train(network, optimizer, batches, loss_of):
    """Train on batches; return the losses."""
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(network, *batch)
        loss.backward()
        optimizer.step(loss=loss)
        losses.append(float(loss.detach()))
    return losses


def classified(network, x, y):
    return F.cross_entropy(network(x), y)


def parts(x, y, size, count):
    return [(x[i * size : (i + 1) * size], y[i * size : (i + 1) * size]) for i in range(count)]


def learned(losses, share):
    """The mean of the last three losses is below a share of that of the first three."""
    return sum(losses[-3:]) < share * sum(losses[:3])


@pytest.mark.slow
def test_resnet_20_on_images_of_32_pixels(hardware, digits):
    x, y = digits
    images = F.interpolate(x, size=32).repeat(1, 3, 1, 1)
    torch.manual_seed(0)
    network = rt.convert(ResNet20(width=4), hardware)
    batch = [(images[:8], y[:8])] * 6
    optimizer = rt.KFAC(network, lr=0.05, damping=0.03)
    losses = train(network, optimizer, batch, classified)
    assert len({block.layer_name for block in optimizer._blocks}) == 22  # 19, 2 shortcuts, 1 dense
    assert learned(losses, 0.7)


def test_a_depthwise_network(hardware, digits):
    torch.manual_seed(0)
    network = rt.convert(depthwise_net(), hardware)
    optimizer = rt.KFAC(network, lr=0.05, damping=0.03)
    losses = train(network, optimizer, parts(*digits, 32, 16), classified)
    assert learned(losses, 0.7)
    treated = {block.layer_name for block in optimizer._blocks}
    assert treated == {"0", *(f"3.{channel}" for channel in range(8)), "6", "10"}


def next_letter(network, x, y):
    logits = network(x)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def test_a_causal_transformer_with_a_tied_embedding_on_text(hardware):
    x, y, entries = windows(96, 16)
    torch.manual_seed(0)
    network = rt.convert(Gpt(entries, width=16, length=16), hardware)
    optimizer = rt.KFAC(network, lr=0.1, damping=0.03, kl_clip=0.1)
    losses = train(network, optimizer, parts(x, y, 8, 12), next_letter)
    assert learned(losses, 0.9)
    treated = {block.layer_name for block in optimizer._blocks}
    assert treated == {"head", *(f"blocks.0.{name}" for name in ("qkv", "out", "fc1", "fc2"))}


def test_an_lstm_on_text(hardware):
    x, y, entries = windows(160, 12)
    torch.manual_seed(0)
    network = rt.convert(TextLstm(entries), hardware)
    optimizer = rt.KFAC(network, lr=0.1, damping=0.03, kl_clip=0.1)
    losses = train(network, optimizer, parts(x, y, 16, 10), next_letter)
    assert learned(losses, 0.9)


def test_a_u_net_finds_bright_pixels(hardware, digits):
    x, _ = digits
    torch.manual_seed(0)
    network = rt.convert(UNet(), hardware)
    noisy = x + 0.2 * torch.randn(x.shape)
    optimizer = rt.KFAC(network, lr=0.1, damping=0.03, loss="binary_cross_entropy", kl_clip=0.1)
    losses = train(
        network,
        optimizer,
        parts(noisy, (x > 0.5).float(), 16, 12),
        lambda net, x, y: F.binary_cross_entropy_with_logits(net(x), y),
    )
    assert learned(losses, 0.8)


def test_a_regression(hardware):
    torch.manual_seed(0)
    x = torch.randn(320, 6)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], dim=1)
    network = rt.convert(nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 2)), hardware)
    optimizer = rt.KFAC(network, lr=0.03, damping=0.03, loss="squared_error", kl_clip=0.003)
    losses = train(
        network, optimizer, parts(x, y, 64, 5) * 4, lambda net, x, y: F.mse_loss(net(x), y)
    )
    assert learned(losses, 0.7)


def test_fine_tuning_of_the_last_layers(hardware, digits):
    torch.manual_seed(0)
    x, y = digits
    network = depthwise_net()
    before = torch.optim.Adam(network.parameters(), lr=0.01)
    for batch in parts(x, y % 5, 64, 10):
        before.zero_grad()
        classified(network, *batch).backward()
        before.step()
    for module in list(network)[:-1]:
        module.requires_grad_(False).eval()
    network[-1] = nn.Linear(256, 10)
    held = network[0].weight.clone()
    rt.convert(network, hardware)
    optimizer = rt.KFAC(network, lr=0.05, damping=0.03)
    losses = train(network, optimizer, parts(x, y, 32, 16), classified)
    assert torch.equal(held, network[0].weight)
    assert {block.layer_name for block in optimizer._blocks} == {"10"}
    assert learned(losses, 0.7)
