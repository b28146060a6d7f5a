"""K-FAC as an optimizer of PyTorch: any loss, any loop."""

import copy
import re
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import repast_dist as rd  # noqa: E402
import repast_dist.torch as rt  # noqa: E402
from repast_dist.ground.errors import DataError, SettingsError  # noqa: E402
from repast_dist.network import kinds  # noqa: E402
from repast_dist.training.optimizers.kfac import Kfac  # noqa: E402

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


def steps_of(model, optimizer, x, y, count):
    found = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_training_goes_on_from_a_saved_state_to_the_bit(tmp_path):
    x, y = data()

    hardware = rd.load_hardware("small")
    model = rt.convert(network().float(), hardware)
    x = x.float()
    optimizer = rt.KFAC(model, lr=0.05)
    steps_of(model, optimizer, x, y, 2)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    wanted = steps_of(model, optimizer, x, y, 3)
    weights, state = torch.load(tmp_path / "state.pt")  # plain tensors: no pickled classes
    other = network().float()
    other.load_state_dict(weights)
    again = rt.KFAC(rt.convert(other, hardware), lr=0.05)
    again.load_state_dict(state)
    assert steps_of(other, again, x, y, 3) == wanted
    with pytest.raises(DataError, match="repast_dist"):
        again.load_state_dict(torch.optim.SGD(other.parameters(), lr=0.1).state_dict())


@pytest.mark.parametrize("what", ["frozen layers", "half precision", "saved twice"])
def test_a_saved_state_holds_all_that_later_steps_depend_on(what):
    hardware = rd.load_hardware("repast", "reram")
    real = torch.bfloat16 if what == "half precision" else torch.float32
    x, y = data()
    x = x.to(real)

    def made():
        model = network().to(real)
        if what == "frozen layers":  # they stay in the arrays that they were written to
            model[0].requires_grad_(False)
        return model

    model = rt.convert(made(), hardware)
    optimizer = rt.KFAC(model)
    steps_of(model, optimizer, x, y, 2)
    weights, state = copy.deepcopy((dict(model.state_dict()), optimizer.state_dict()))
    wanted = steps_of(model, optimizer, x, y, 2)
    for _ in range(2 if what == "saved twice" else 1):
        other = made()
        other.load_state_dict(weights)
        again = rt.KFAC(rt.convert(other, hardware))
        again.load_state_dict(state)
        state = copy.deepcopy(again.state_dict())
    assert steps_of(other, again, x, y, 2) == wanted
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        for kind, values in optimizer.state[theirs].items():
            torch.testing.assert_close(again.state[ours][kind], values, rtol=0, atol=0)


class Pieces(nn.Module):
    """A matrix that is half of a parameter, two layers with one bias, and a frozen bias."""

    def __init__(self):
        super().__init__()
        self.part = Half()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.bias = self.one.bias
        self.head = nn.Linear(4, 3)
        self.head.bias.requires_grad_(False)
        self.scale, self.last = nn.Parameter(torch.tensor(1.5)), nn.Linear(3, 3)

    def forward(self, x):
        x = torch.tanh(self.part(x))
        return self.last(self.scale * self.head(torch.tanh(self.one(x) + self.two(x**2))))


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 8))

    def forward(self, x):
        return x @ self.weight[:, :4] + x @ self.weight[:, 4:]


class HalfOnArrays(rt.Converted):
    def matrices(self):
        return [self.matrix("", "weight", lambda weight: weight[:, :4], kinds.DENSE)]

    def forward(self, x):
        return self.product("", x) + x @ self.weight[:, 4:]


def test_matrices_that_are_no_arrays_of_their_own_follow_the_plain_gradient():
    torch.manual_seed(0)
    model, (x, y) = Pieces().double(), data()
    rt.convert(model, classes={Half: HalfOnArrays}, **EXACT)
    optimizer = rt.KFAC(model, lr=0.1, momentum=0.0, kl_clip=None)
    F.cross_entropy(model(x), y).backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    assert {block.layer_name for block in optimizer._blocks} == {"last"}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith("last"):
            torch.testing.assert_close(parameter, before[name] - 0.1 * parameter.grad)
    torch.testing.assert_close(model.head.bias, before["head.bias"])


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_outputs_that_are_no_samples_are_refused_in_a_line(loss):
    model, (x, _) = network(), data()
    rt.KFAC(model, loss=loss, outputs=lambda result: result.sum(), **EXACT)
    with pytest.raises(SettingsError, match=r"outputs of shape \(\) have no dimension"):
        model(x)
    if loss == "cross_entropy":
        return
    model = rt.convert(network(), batch_dim=1, **EXACT)
    rt.KFAC(model, loss=loss)
    with pytest.raises(SettingsError, match=r"\(4, 24, 3\) of 24 samples; valid: samples in the"):
        model(x.expand(4, 24, 6))


def test_steps_that_make_no_sense_are_refused_in_a_line():
    model, (x, y) = network(), data()
    optimizer = rt.KFAC(model, fisher="empirical", **EXACT)
    with pytest.raises(DataError, match="no samples"):
        model(x[:0])
    optimizer.zero_grad()
    steps_of(model, optimizer, x, y, 1)
    outputs = model(x)
    F.cross_entropy(outputs, y).backward(retain_graph=True)
    with pytest.raises(DataError, match="differentiated twice"):
        F.cross_entropy(outputs, 2 - y).backward()
    for name, value in {"lr": -0.1, "momentum": 1.5}.items():
        model = network()
        optimizer = rt.KFAC(model, **EXACT)
        optimizer.param_groups[0][name] = value
        with pytest.raises(SettingsError, match=rf"^a parameter group: .*={value}: [^\n]*$"):
            steps_of(model, optimizer, x, y, 1)
    with pytest.raises(SettingsError, match=r"^KFAC: damping=-1.0: [^\n]*$"):
        rt.KFAC(network(), damping=-1.0, **EXACT)


def test_gradients_that_hold_their_rows_only_are_those_of_all_rows():
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(7, 4, sparse=sparse), nn.Flatten(), nn.Linear(8, 3))
        tokens, y = torch.arange(12).view(6, 2) % 5, torch.arange(6) % 3
        found.append(steps_of(model, rt.KFAC(model, **EXACT), tokens, y, 3))
    assert found[0] == found[1]


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
    with pytest.raises(SettingsError, match=r"adapted every 3 steps.*valid: adapt_damping_every=0"):
        rt.KFAC(network(), method=Kfac(adapt_damping_every=3), **EXACT)
    for setting in (
        "soi.stale=2", "soi.fusion=on", "partition.layers=pipeline", "soi.factor_positions=0.5",
        "soi.factor_micro_batches=0.5", "soi.residual_to_noise=0.5", "partition.idle_chips=auto",
    ):  # fmt: skip
        name = setting.partition("=")[0]
        model = rt.convert(network(), rd.load_hardware("small"), setting)
        with pytest.raises(SettingsError, match=rf"{name}=.* is not modelled here; valid: "):
            rt.KFAC(model)


def test_single_factors_have_widths_of_their_own():
    def trained(*settings):
        model = rt.convert(network(), rd.load_hardware("small"), "engine=float64", *settings)
        optimizer = rt.KFAC(model, fisher="exact")
        x, y = data()
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        solved = optimizer.solves.select(["step", "layer", "factor", "block"]).to_pylist()
        return [p.detach().numpy().copy() for p in model.parameters()], solved

    factors = [(layer, factor) for layer in ("0", "2") for factor in "AG"]
    each = ",".join(f"{{layer: '{layer}', factor: {f}, block_size: 3}}" for layer, f in factors)
    narrow, blocks = trained("soi.block_size=3")
    same, same_blocks = trained(f"soi.widths=[{each}]")
    one, one_blocks = trained("soi.widths=[{layer: '0', factor: A, block_size: 3}]")
    whole, _ = trained()
    assert blocks == same_blocks
    assert all(np.array_equal(a, b) for a, b in zip(narrow, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(narrow, one, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(whole, one, strict=True))
    # The first layer has six inputs and a bias.
    parts = Counter((block["layer"], block["factor"]) for block in one_blocks if not block["step"])
    assert parts == {(0, "A"): 3, (0, "G"): 1, (1, "A"): 1, (1, "G"): 1}
    with pytest.raises(SettingsError, match=r"soi\.widths: no factor A of a layer '1'"):
        trained("soi.widths=[{layer: '1', factor: A, block_size: 3}]")


class Apart(nn.Module):
    """A convolution of several groups as convolutions of their own, side by side."""

    def __init__(self, whole):
        super().__init__()
        self.parts = nn.ModuleList()
        weights, biases = whole.weight.chunk(whole.groups), whole.bias.chunk(whole.groups)
        for weight, bias in zip(weights, biases, strict=True):
            part = type(whole)(*weight.shape[1::-1], whole.kernel_size, padding=whole.padding)
            part.weight, part.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
            self.parts.append(part)

    def forward(self, x):
        pieces = x.chunk(len(self.parts), dim=1)
        return torch.cat([part(piece) for part, piece in zip(self.parts, pieces, strict=True)], 1)


@pytest.mark.parametrize("fisher", ["exact", "sampled", "empirical"])
@pytest.mark.parametrize(("conv", "size"), [(nn.Conv2d, (4, 4)), (nn.Conv1d, (7,))])
def test_groups_have_the_factors_of_convolutions_side_by_side(conv, size, fisher):
    torch.manual_seed(0)
    whole = nn.Sequential(conv(6, 9, 3, padding=1, groups=3), nn.Flatten(), nn.LazyLinear(4))
    x, y = torch.randn(8, 6, *size, dtype=DOUBLE), torch.randint(0, 4, (8,))
    whole(x.float())
    whole = whole.double()
    apart = copy.deepcopy(whole)
    apart[0] = Apart(apart[0]).double()
    for model in (whole, apart):
        optimizer = rt.KFAC(model, lr=0.1, damping=0.03, fisher=fisher, **EXACT)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        assert len({row["block"] for row in optimizer.solves.to_pylist()}) == 8
    for name in ("weight", "bias"):
        wanted = torch.cat([getattr(part, name) for part in apart[0].parts])
        np.testing.assert_allclose(
            getattr(whole[0], name).detach(), wanted.detach(), rtol=1e-9, atol=1e-12
        )
    np.testing.assert_allclose(whole[2].weight.detach(), apart[2].weight.detach(), rtol=1e-9)


class Twice(nn.Module):
    """One layer that is called twice, or two that share its weights."""

    def __init__(self, one, tied):
        super().__init__()
        self.first = one
        if tied:
            self.second = nn.Linear(5, 5).double()
            self.second.weight, self.second.bias = one.weight, one.bias
        self.head = nn.Linear(5, 3).double()

    def forward(self, x):
        x = torch.tanh(self.first(x))
        return self.head(torch.tanh((self.second if hasattr(self, "second") else self.first)(x)))


@pytest.mark.parametrize("fisher", ["exact", "sampled"])
def test_layers_that_share_all_weights_are_one_layer_that_is_used_twice(fisher):
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    y = torch.arange(8) % 3
    found = []
    for tied in (False, True):
        torch.manual_seed(0)
        one = nn.Linear(5, 5).double()
        state = torch.get_rng_state()
        model = Twice(one, tied)
        torch.set_rng_state(state)
        model.head.reset_parameters()
        optimizer = rt.KFAC(model, lr=0.1, fisher=fisher, **EXACT)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        assert len({row["block"] for row in optimizer.solves.to_pylist()}) == 4
        found.append([item.detach().numpy() for item in model.parameters()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


class Tied(nn.Module):
    """A look-up and a head with the same weights."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.hidden = nn.Linear(5, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.hidden(self.embed(tokens))))


def test_a_tied_embedding_has_the_factors_of_its_product_and_the_gradient_of_both_uses():
    torch.manual_seed(0)
    model = Tied().double()
    reference = copy.deepcopy(model)
    tokens, y = torch.randint(0, 7, (12,)), torch.randint(0, 7, (12,))
    with torch.no_grad():
        hidden = torch.tanh(reference.hidden(reference.embed(tokens)))
    g = softmax_hessian(reference(tokens).detach()).mean(dim=0)
    a = hidden.T @ hidden / 12
    F.cross_entropy(reference(tokens), y).backward()
    step = torch.linalg.solve(a + 0.03 * torch.eye(5), reference.embed.weight.grad.T)
    step = torch.linalg.solve(g + 0.03 * torch.eye(7), step.T)
    optimizer = rt.KFAC(
        model, lr=0.1, damping=0.03, damping_form="plain", fisher="exact", kl_clip=None, **EXACT
    )
    F.cross_entropy(model(tokens), y).backward()
    optimizer.step()
    torch.testing.assert_close(model.embed.weight, reference.embed.weight - 0.1 * step)
    assert model.head.weight is model.embed.weight


def test_the_factors_of_a_layer_used_twice_are_those_of_both_uses():
    # By hand, from PyTorch's own gradients of the logits' derivatives.
    torch.manual_seed(0)
    model = Twice(nn.Linear(5, 5).double(), True)
    x, y = torch.randn(6, 5, dtype=DOUBLE), torch.randint(0, 3, (6,))
    one = torch.ones(6, 1, dtype=DOUBLE)
    before = model.first(x)
    middle = torch.tanh(before)
    after = model.first(middle)
    z = model.head(torch.tanh(after))
    errors = torch.autograd.grad(F.cross_entropy(z, y, reduction="sum"), (before, after))
    rows = torch.cat([torch.cat([x, one], 1), torch.cat([middle.detach(), one], 1)])
    gradients = torch.cat(errors)
    optimizer = rt.KFAC(model, fisher="empirical", **EXACT)
    F.cross_entropy(model(x), y).backward()
    total = optimizer._statistics.total()
    np.testing.assert_allclose(total["first", "A"], rows.T @ rows / 12, rtol=1e-12)
    np.testing.assert_allclose(total["first", "G"], gradients.T @ gradients / 6, rtol=1e-9)
