"""Converted modules compute what PyTorch's own do, forward and backward, in exact arithmetic."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import repast_dist.torch as rt  # noqa: E402
from repast_dist.ground.errors import DataError, SettingsError  # noqa: E402
from repast_dist.network import kinds  # noqa: E402


class Gpt(nn.Module):
    """One causal block with a tied embedding, through the function of PyTorch."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(5, 8))
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens) + self.position
        heads = self.qkv(self.norm(x)).view(*tokens.shape, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.head(x + F.gelu(y.transpose(1, 2).flatten(2)))


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


RANDOM = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=RANDOM, dtype=torch.float64)


KINDS = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3, bias=False)),
               [random(6, 7, 5)], 0),
    "one vector": (lambda: nn.Linear(5, 4), [random(5)], 0),
    "conv": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2)), [random(3, 4, 9, 8)], 0),
    "grouped conv": (lambda: nn.Conv2d(4, 6, 3, groups=2), [random(3, 4, 9, 8)], 0),
    "depthwise conv": (lambda: nn.Conv2d(4, 8, 3, padding="same", groups=4,
                                         padding_mode="reflect"), [random(3, 4, 9, 8)], 0),
    "unbatched conv": (lambda: nn.Conv2d(4, 6, 3), [random(4, 9, 8)], 0),
    "conv in one dimension": (lambda: nn.Conv1d(4, 6, 3, 2, 1, 2), [random(3, 4, 15)], 0),
    "transposed conv": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), 2, 1, 1, groups=2),
                        [random(3, 4, 5, 4)], 0),
    "transposed conv beyond": (lambda: nn.ConvTranspose2d(4, 6, 2, 3, 0, 2, bias=False),
                               [random(3, 4, 5, 4)], 0),
    "self-attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True),
                       [random(3, 5, 8), random(3, 6, 8), random(3, 6, 8)], 0),
    "attention of other widths": (lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=4),
                                  [random(5, 3, 8), random(6, 3, 6), random(6, 3, 4)], 1),
    "encoder": (encoder, [random(3, 5, 8)], 0),
    "lstm": (lambda: nn.LSTM(5, 6, 2, bidirectional=True, batch_first=True, proj_size=3),
             [random(3, 4, 5)], 0),
    "gru": (lambda: nn.GRU(5, 6, 2, bidirectional=True), [random(4, 3, 5)], 1),
    "gpt": (Gpt, [torch.randint(0, 11, (3, 5), generator=RANDOM)], 0),
}  # fmt: skip


def differentiated(network, inputs, **options):
    """Outputs, and gradients by inputs and by all parameters."""
    given = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    found = network(*given, **options)
    outputs = found[0] if isinstance(found, tuple) else found
    outputs.sin().sum().backward()
    gradients = [x.grad for x in given if x.grad is not None]
    return [outputs.detach(), *gradients, *(p.grad for p in network.parameters())]


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_pytorch(kind):
    make, inputs, batch_dim = KINDS[kind]
    torch.manual_seed(1)
    network = make().double()
    reference = copy.deepcopy(network)
    rt.convert(network, engine="float64", batch_dim=batch_dim)
    for ours, theirs in zip(
        differentiated(network, inputs), differentiated(reference, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_products_may_be_pytorchs_own(kind):
    make, inputs, batch_dim = KINDS[kind]
    torch.manual_seed(1)
    network = make().double()
    reference = copy.deepcopy(network)
    rt.convert(network, engine="float64", batch_dim=batch_dim, exact_in="tensors")
    for ours, theirs in zip(
        differentiated(network, inputs), differentiated(reference, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_and_in_evaluation_too(kind):
    make, inputs, batch_dim = KINDS[kind]
    torch.manual_seed(1)
    network = make().double().eval()
    reference = copy.deepcopy(network)
    rt.convert(network, engine="float64", batch_dim=batch_dim)
    with torch.no_grad():
        ours, theirs = network(*inputs), reference(*inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_masks_of_attention_are_those_of_pytorch():
    torch.manual_seed(1)
    network = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    reference = copy.deepcopy(network)
    rt.convert(network, engine="float64")
    x = random(3, 5, 8)
    padding = torch.tensor([[False] * 5, [False] * 4 + [True], [False] * 3 + [True] * 2])
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    for masks in (
        {"attn_mask": causal, "is_causal": True},
        {"attn_mask": random(6, 5, 5)},
        {"key_padding_mask": padding, "attn_mask": causal},
        {"key_padding_mask": padding, "average_attn_weights": False},
    ):
        for ours, theirs in zip(network(x, x, x, **masks), reference(x, x, x, **masks)):  # noqa: B905
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_masks_of_the_function_are_those_of_pytorch():
    class Attend(nn.Module):
        def forward(self, q, k, v, **options):
            return F.scaled_dot_product_attention(q, k, v, **options)

    network, reference = rt.convert(Attend(), engine="float64"), Attend()
    q, k, v = random(2, 4, 5, 3), random(2, 2, 6, 3), random(2, 2, 6, 3)
    for options in (
        {"enable_gqa": True},
        {"enable_gqa": True, "attn_mask": random(5, 6), "scale": 0.3},
        {"enable_gqa": True, "attn_mask": torch.ones(5, 6, dtype=torch.bool).tril()},
    ):
        torch.testing.assert_close(network(q, k, v, **options), reference(q, k, v, **options))


@pytest.mark.parametrize("kind", ["linear", "conv", "depthwise conv", "self-attention", "lstm"])
def test_arrays_come_close_and_are_no_copy_of_pytorch(kind):
    make, inputs, batch_dim = KINDS[kind]
    torch.manual_seed(1)
    network = make().double()
    reference = copy.deepcopy(network)
    rt.convert(network, batch_dim=batch_dim)
    found = zip(differentiated(network, inputs), differentiated(reference, inputs), strict=True)
    for ours, theirs in found:
        if float(theirs.abs().max()) < 1e-9:
            continue
        error = float((ours - theirs).norm() / theirs.norm())
        assert 1e-6 < error < 0.3


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    def outputs(seed):
        torch.manual_seed(1)
        network = rt.convert(nn.Linear(5, 4), seed=seed)
        x = torch.ones(3, 5)
        first = network(x)
        return first.detach(), network(x).detach()

    first, second = outputs(0)
    again, _ = outputs(0)
    other, _ = outputs(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == second.shape


def test_weights_are_written_once_per_version():
    network = rt.convert(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)))
    simulation = rt.conversion(network).simulation
    loads = []
    load = type(simulation.engine).load

    def counted(engine, role, matrix, address):
        loads.append((role, address[0], address[2], int(address[1])))
        return load(engine, role, matrix, address)

    optimizer = torch.optim.SGD(network[1].parameters(), lr=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(simulation.engine), "load", counted)
        for _ in range(2):
            for _ in range(3):
                network(torch.ones(2, 5)).sum().backward()
            optimizer.step()
    weights = [item[1:] for item in loads if item[1] == "weights"]
    # The second step has new weights in the second layer only.
    assert weights == [("weights", "0", 0), ("weights", "1", 0), ("weights", "1", 1)]


def test_what_is_not_converted_is_listed():
    class Own(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight.abs(), self.bias)

    parts = [nn.Linear(4, 4), nn.BatchNorm1d(4), Own(4, 4), nn.Bilinear(4, 4, 2), nn.Linear(4, 2)]
    network = nn.ModuleList(parts)
    rt.convert(network, engine="float64", skip=lambda path, module: path == "4")
    rows = {row["path"]: row for row in rt.conversion(network).table.to_pylist()}
    assert rows["0"]["converted"]
    assert not any(rows[path]["converted"] for path in "1234")
    assert "forward of its own" in rows["2"]["reason"]
    assert "no class in the map" in rows["3"]["reason"]
    assert rows["4"]["reason"] == "left out"
    assert sum(row["parameters"] for row in rows.values()) == sum(
        parameter.numel() for parameter in network.parameters()
    )


def test_a_class_of_ones_own_is_converted():
    class Scaled(nn.Module):
        """Rows times (in, out) weights, as transformers' Conv1D holds them."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            return 2 * x @ self.weight

    class OnArrays(rt.Converted):
        def matrices(self):
            return [self.matrix("", "weight", lambda weight: weight, kinds.DENSE)]

        def forward(self, x):
            return 2 * self.product("", x)

    network = nn.Sequential(Scaled())
    reference = copy.deepcopy(network)
    rt.convert(network, engine="float64", classes={Scaled: OnArrays})
    x = torch.randn(5, 4)
    for ours, theirs in zip(
        differentiated(network, [x]), differentiated(reference, [x]), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert rt.conversion(network).work.latest.macs_per_sample == 12


def test_names_and_values_of_the_state_stay():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LSTM(4, 4), nn.MultiheadAttention(4, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rt.convert(network)
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(network[0], nn.Conv2d)


def test_a_part_called_by_itself_is_refused():
    network = rt.convert(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(DataError, match="call the network"):
        network[0](torch.ones(1, 3))
    with pytest.raises(SettingsError, match="already"):
        rt.convert(network)
    with pytest.raises(DataError, match="cannot be copied"):
        copy.deepcopy(network)
    with pytest.raises(SettingsError, match="farm"):
        rt.convert(nn.Linear(2, 2), None, "farm.chips=2")
    with pytest.raises(SettingsError, match="hardware"):
        rt.convert(nn.Linear(2, 2), "engine=float64")


def test_a_call_that_fails_leaves_nothing_behind():
    network = rt.convert(nn.Sequential(nn.Linear(3, 2)))
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(DataError, match="finite"):
        network(torch.full((1, 3), np.nan))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert network(torch.ones(1, 3)).shape == (1, 2)
    with pytest.raises(DataError, match="call the network"):
        network[0](torch.ones(1, 3))


class TwoUses(nn.Module):
    """A layer whose first use is not differentiated, as that of a teacher."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        with torch.no_grad():
            target = self.layer(x + 1)
        return self.head(self.layer(x) + target)


def test_a_use_without_gradients_takes_none_from_the_others():
    torch.manual_seed(0)
    plain = TwoUses().double()
    network = rt.convert(copy.deepcopy(plain), engine="float64")
    x = random(6, 5)
    for ours, theirs in zip(differentiated(network, [x]), differentiated(plain, [x]), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert network.layer.weight.grad.abs().max() > 0


@pytest.mark.parametrize("exact_in", ["float64", "tensors"])
def test_second_derivatives_are_refused(exact_in):
    layers = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    network = rt.convert(layers, engine="float64", exact_in=exact_in)
    x = random(6, 5).requires_grad_()
    (slopes,) = torch.autograd.grad(network(x).sum(), x)  # once is fine
    assert slopes.shape == x.shape
    with pytest.raises(DataError, match=r"create_graph=True"):
        torch.autograd.grad(network(x).sum(), x, create_graph=True)
    attention = rt.convert(nn.MultiheadAttention(4, 2).double(), engine="float64")
    x = random(3, 2, 4).requires_grad_()
    with pytest.raises(DataError, match=r"create_graph=True"):
        torch.autograd.grad(attention(x, x, x)[0].sum(), x, create_graph=True)


def test_inputs_that_change_after_they_were_multiplied_are_refused():
    class Changes(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x):
            x = x.clone()
            y = self.one(x)
            x += 1  # PyTorch's own layers refuse it in the backward pass, too
            return y + self.two(x)

    with pytest.raises(RuntimeError, match="inplace"):
        Changes().double()(random(6, 5)).sum().backward()
    network = rt.convert(Changes().double(), engine="float64")
    with pytest.raises(DataError, match=r"one: its inputs were changed in place"):
        network(random(6, 5)).sum().backward()


@pytest.mark.parametrize("how", [
    nn.utils.weight_norm, nn.utils.spectral_norm,
    lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_hooks_compute_stay_pytorchs(how):
    def made():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double().eval()
        how(layers[0])
        return layers

    plain, network = made(), rt.convert(made(), engine="float64")
    rows = {row["path"]: row for row in rt.conversion(network).table.to_pylist()}
    assert rows["2"]["converted"]
    assert "computed from others" in rows["0"]["reason"]
    x = random(6, 5)
    for _ in range(2):  # the second call is one after a step
        torch.testing.assert_close(network(x), plain(x))
        for model in (network, plain):
            with torch.no_grad():
                for number, parameter in enumerate(model[0].parameters()):
                    parameter.mul_(2 + number)


def test_matrices_that_are_copies_of_their_parameters_are_refused():
    class OnArrays(rt.Converted):
        def matrices(self):
            return [self.matrix("", "weight", lambda weight: weight.t().clone(), kinds.DENSE)]

        def forward(self, x):
            return self.product("", x)

    with pytest.raises(SettingsError, match=r"0: .* weight is a copy.*valid: a view"):
        rt.convert(nn.Sequential(nn.Linear(4, 3)), classes={nn.Linear: OnArrays})


def test_tokens_that_may_attend_to_none_get_what_pytorch_gives_them():
    blocked = torch.zeros(5, 5, dtype=torch.bool)
    blocked[2] = True
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(8, 2, batch_first=True).double()
    network = rt.convert(copy.deepcopy(plain), engine="float64")
    x = random(3, 5, 8)
    # Where PyTorch tells the weights, such tokens have no numbers in its result, either.
    found, wanted = (
        differentiated(model, [x, x, x], attn_mask=blocked, need_weights=False)
        for model in (network, plain)
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not any(part.isnan().any() for part in found)


@pytest.mark.parametrize("alone", ["query", "key and value"])
def test_attention_to_one_sample_is_that_of_all(alone):
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            y = self.layer(x)
            q, k = (y[:1], x) if alone == "query" else (y, x[:1])
            return F.scaled_dot_product_attention(q, k, k)

    torch.manual_seed(0)
    plain = Attends().double()
    network = rt.convert(copy.deepcopy(plain), engine="float64")
    x = random(3, 2, 5, 4)
    for ours, theirs in zip(differentiated(network, [x]), differentiated(plain, [x]), strict=True):
        torch.testing.assert_close(ours, theirs)
