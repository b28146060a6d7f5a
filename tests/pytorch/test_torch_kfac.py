"""K-FAC as an optimizer of PyTorch: any loss, any loop."""

import copy
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import repast_dist as rd  # noqa: E402
import repast_dist.torch as rt  # noqa: E402
from repast_dist.ground.errors import DataError, SettingsError  # noqa: E402

EXACT = {"engine": "float64"}
DOUBLE = torch.float64


def network(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def data(outputs=3, samples=24):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 6, generator=generator, dtype=DOUBLE)
    return x, torch.randint(0, outputs, (samples,), generator=generator)


def fisher_of(model, x, outputs_hessian):
    """The Kronecker factors of the last layer, by hand: mean a a^T and mean of J^T H J."""
    with torch.no_grad():
        hidden = torch.cat([model[1](model[0](x)), torch.ones(len(x), 1, dtype=DOUBLE)], dim=1)
        z = model(x)
    return hidden.T @ hidden / len(x), outputs_hessian(z).mean(dim=0)


def softmax_hessian(z):
    p = z.softmax(dim=1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None]


LOSSES = {
    "cross_entropy": (F.cross_entropy, softmax_hessian),
    "squared_error": (
        lambda z, y: F.mse_loss(z, F.one_hot(y, z.shape[1]).double()),
        lambda z: torch.eye(z.shape[1], dtype=DOUBLE).expand(len(z), -1, -1) * 2 / z.shape[1],
    ),
    "binary_cross_entropy": (
        lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, z.shape[1]).double()),
        lambda z: torch.diag_embed(z.sigmoid() * (1 - z.sigmoid())) / z.shape[1],
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_exact_fisher_is_the_hessian_of_the_loss_by_the_outputs(loss):
    function, hessian = LOSSES[loss]
    model, (x, y) = network(), data()
    a, g = fisher_of(copy.deepcopy(model), x, hessian)
    optimizer = rt.KFAC(model, lr=1e-3, fisher="exact", loss=loss, kl_clip=None, **EXACT)
    function(model(x), y).backward()
    found = optimizer._statistics.total()
    np.testing.assert_allclose(found["2", "A"], a, rtol=1e-10)
    np.testing.assert_allclose(found["2", "G"], g, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_sampled_fisher_has_the_exact_one_as_its_mean(loss):
    function, hessian = LOSSES[loss]
    model, (x, y) = network(), data()
    _, g = fisher_of(copy.deepcopy(model), x, hessian)
    optimizer = rt.KFAC(model, lr=1e-300, loss=loss, kl_clip=None, momentum=0.0, **EXACT)
    total = np.zeros((3, 3))
    for _ in range(200):
        function(model(x), y).backward()
        total += optimizer._statistics.total()["2", "G"] / 200
        optimizer.step()
    np.testing.assert_allclose(total, g, atol=0.12 * float(g.max()))


def test_tokens_are_independent_terms_of_a_samples_loss():
    torch.manual_seed(0)
    tokens = nn.Linear(4, 5).double()
    x = torch.randn(6, 7, 4, dtype=DOUBLE)
    y = torch.randint(0, 5, (6, 7))
    optimizer = rt.KFAC(tokens, lr=1e-300, kl_clip=None, **EXACT)
    p = tokens(x).detach().softmax(dim=2)
    exact = (torch.diag_embed(p) - p[..., :, None] * p[..., None, :]).mean(dim=(0, 1))
    total = np.zeros((5, 5))
    for _ in range(200):
        F.cross_entropy(tokens(x).reshape(-1, 5), y.reshape(-1)).backward()
        found = optimizer._statistics.total()
        total += found["network", "G"] / 200
        optimizer.step()
    np.testing.assert_allclose(total, exact, atol=0.05 * float(exact.max()))
    rows = torch.cat([x, torch.ones(6, 7, 1, dtype=DOUBLE)], dim=2).reshape(-1, 5)
    np.testing.assert_allclose(found["network", "A"], rows.T @ rows / 42, rtol=1e-12)


def test_the_empirical_fisher_is_that_of_the_samples_own_losses():
    model, (x, y) = network(), data()
    reference = copy.deepcopy(model)
    z = reference(x)
    errors = torch.autograd.grad(F.cross_entropy(z, y, reduction="sum"), z)[0]
    for parts in (1, 3):
        other = copy.deepcopy(reference)
        optimizer = rt.KFAC(other, fisher="empirical", accumulation_steps=parts, **EXACT)
        for part in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (F.cross_entropy(other(part[0]), part[1]) / parts).backward()
        found = optimizer._statistics.total()["2", "G"]
        np.testing.assert_allclose(found, errors.T @ errors / len(x), rtol=1e-10, atol=1e-15)


def test_a_step_follows_the_natural_gradient():
    model, (x, y) = network(), data()
    reference = copy.deepcopy(model)
    a, g = fisher_of(reference, x, softmax_hessian)
    F.cross_entropy(reference(x), y).backward()
    gradient = torch.cat([reference[2].weight.grad.T, reference[2].bias.grad[None]])
    damping, eye = 0.03, torch.eye
    step = torch.linalg.solve(a + damping * eye(6), gradient)
    step = torch.linalg.solve(g + damping * eye(3), step.T).T
    optimizer = rt.KFAC(
        model, lr=0.1, damping=damping, damping_form="plain", fisher="exact", kl_clip=None, **EXACT
    )
    before = model[2].weight.detach().clone(), model[2].bias.detach().clone()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    torch.testing.assert_close(model[2].weight, before[0] - 0.1 * step[:-1].T)
    torch.testing.assert_close(model[2].bias, before[1] - 0.1 * step[-1])


def test_micro_batches_add_up_to_the_batch():
    x, y = data()
    found = []
    for parts in (1, 4):
        model = network()
        optimizer = rt.KFAC(model, lr=0.1, **EXACT)
        for _ in range(3):
            optimizer.zero_grad()
            for part in zip(x.chunk(parts), y.chunk(parts), strict=True):
                (F.cross_entropy(model(part[0]), part[1]) / parts).backward()
            optimizer.step()
        found.append(model[0].weight.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_groups_and_schedulers_set_the_rate():
    model, (x, y) = network(), data()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}]
    optimizer = rt.KFAC(model, lr=0.1, params=groups, momentum=0.0, kl_clip=None, **EXACT)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)
    first, last = model[0].weight.detach().clone(), model[2].weight.detach().clone()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    schedule.step()
    torch.testing.assert_close(model[0].weight, first, rtol=0, atol=1e-12)
    moved = model[2].weight.detach().clone()
    assert not torch.allclose(moved, last)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    torch.testing.assert_close(model[2].weight, moved, rtol=0, atol=1e-12)


def test_frozen_layers_stay_and_have_no_blocks():
    model, (x, y) = network(), data()
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    optimizer = rt.KFAC(model, lr=0.1, **EXACT)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert torch.equal(model[0].weight, frozen)
    assert losses[-1] < losses[0]
    assert {block.layer_name for block in optimizer._blocks} == {"2"}


def test_training_goes_on_from_a_saved_state_to_the_bit(tmp_path):
    x, y = data()

    def steps(model, optimizer, count):
        losses = []
        for _ in range(count):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    hardware = rd.load_hardware("small")
    model = rt.convert(network().float(), hardware)
    x = x.float()
    optimizer = rt.KFAC(model, lr=0.05)
    steps(model, optimizer, 2)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    wanted = steps(model, optimizer, 3)
    weights, state = torch.load(tmp_path / "state.pt")  # plain tensors: no pickled classes
    other = network().float()
    other.load_state_dict(weights)
    again = rt.KFAC(rt.convert(other, hardware), lr=0.05)
    again.load_state_dict(state)
    assert steps(other, again, 3) == wanted
    with pytest.raises(DataError, match="repast_dist"):
        again.load_state_dict(torch.optim.SGD(other.parameters(), lr=0.1).state_dict())


def test_the_page_shows_losses_costs_and_layers(tmp_path):
    model, (x, y) = network(), data()
    optimizer = rt.KFAC(model, lr=0.05, hardware=rd.load_hardware("small"))
    with pytest.raises(DataError, match="no step"):
        optimizer.report(tmp_path / "page.html")
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step(loss=loss)
    page = optimizer.report(tmp_path / "page.html").read_text()
    assert "Sequential on data of a PyTorch loop, trained with K-FAC on 1 chip" in page
    for heading in ("Training", "Where time and energy go", "Inversion", "Network, plan"):
        assert re.search(rf"<h2[^>]*>{heading}", page), heading
    assert optimizer.solves.num_rows == 3 * 4


def test_what_cannot_be_is_refused():
    model, (x, _) = network(), data()
    with pytest.raises(SettingsError, match="loss"):
        rt.KFAC(model, loss="hinge", **EXACT)
    model = network()
    optimizer = rt.KFAC(model, **EXACT)
    with pytest.raises(DataError, match="not called"):
        optimizer.step()
    with pytest.raises(SettingsError, match="add up to 0"):
        F.mse_loss(model(x), torch.zeros(24, 3, dtype=DOUBLE)).backward()
    with pytest.raises(SettingsError, match="converted already"):
        rt.KFAC(model, engine="float64")
    with pytest.raises(SettingsError, match="momentum"):
        rt.KFAC(model, momentum=1.5)
