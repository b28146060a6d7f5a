"""Products by PyTorch have the bits of the compiled ones: draws, conversions, sums."""

import json
from fractions import Fraction

import numpy as np
import pytest
from conftest import final_arrays

torch = pytest.importorskip("torch")

from repast_dist.analog import (  # noqa: E402
    AdcSpec,
    CurveSpec,
    DacSpec,
    DeviceSpec,
    Reram,
    VmmSpec,
    program_vmm,
)
from repast_dist.analog.arrays.vmm import program_each  # noqa: E402
from repast_dist.analog.kernels import pytorch  # noqa: E402
from repast_dist.analog.kernels.chosen import kernels, using  # noqa: E402
from repast_dist.analog.kernels.noise import fill_rows  # noqa: E402
from repast_dist.ground.errors import SettingsError  # noqa: E402

NAMES = ("torch", "cuda") if torch.cuda.is_available() else ("torch",)
CALIBRATED, FULL = AdcSpec(bits=8, range="calibrated"), AdcSpec(bits=8, range="full")
DISTORTED = AdcSpec(bits=8, range="calibrated", offset_lsb=0.3, inl_lsb=0.4, noise_lsb=0.5)
UNEVEN = AdcSpec(bits=8, range="calibrated", offset_lsb=0.3, gain_error=0.02, inl_lsb=0.4)


def spec(adc: AdcSpec = CALIBRATED, dac_bits: int = 1, rows: int = 256, **cell: float) -> VmmSpec:
    device = DeviceSpec(cell=Reram(**{"bits": 4, **cell}))  # type: ignore[arg-type]
    return VmmSpec(device=device, adc=adc, dac=DacSpec(bits=dac_bits), rows=rows)


CASES = {
    "whole levels": spec(FULL),
    "programming errors": spec(programming_sigma=0.02),
    "read noise": spec(programming_sigma=0.01, read_sigma=0.01),
    "read noise, whole levels": spec(read_sigma=0.01, rows=100),
    "converters with noise": spec(DISTORTED, read_sigma=0.01),
    "converters with errors": spec(UNEVEN, programming_sigma=0.01),
    "four bits a pass": spec(dac_bits=4, programming_sigma=0.01),
    "lossless converters, noisy cells": spec(AdcSpec(range="lossless"), programming_sigma=0.01),
    "more rows than sums are exact for": spec(rows=2048, dac_bits=4, programming_sigma=0.01),
    "curved cells": VmmSpec(
        device=DeviceSpec(cell=Reram(bits=4, read_sigma=0.01), curve=CurveSpec(v0_volts=0.25)),
        adc=CALIBRATED,
        dac=DacSpec(bits=4),
    ),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(5, 300, 171), (90, 530, 64), (1, 7, 3)])
def test_pytorch_gives_the_bits_of_the_compiled_kernels(name, case, shape, monkeypatch):
    # Parts of few rows: they are put together as the whole.
    monkeypatch.setattr(pytorch, "_AT_ONCE", {"cuda": 2**18, "cpu": 2**18})
    count, rows, columns = shape
    random = np.random.default_rng(3)
    inputs = random.normal(size=(count, rows))
    weights = random.normal(size=(rows, columns))
    ranges = np.full(CASES[case].slices, 60.0, np.float32)
    found = []
    for kernel in ("float32", name):
        with using(kernel):
            array = program_vmm(weights, CASES[case], 1, "w")
            products = [array.multiply(inputs, "first"), array.multiply(2 * inputs, ranges=ranges)]
            products.append(array.columns(1, columns).multiply(inputs, "some columns"))
        found.append([(p.values, p.clipped, p.conversions, p.needed) for p in products])
    np.testing.assert_equal(found[1], found[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_stack_is_one_batch_with_the_same_bits(name):
    random = np.random.default_rng(5)
    weights, inputs = random.normal(size=(6, 30, 9)), random.normal(size=(6, 40, 30))
    how = spec(programming_sigma=0.01, read_sigma=0.01, rows=16)
    found = []
    for kernel in ("float32", name):
        with using(kernel):
            stack = program_vmm(weights, how, 1, "s")
            found.append(stack.multiply(inputs, "c").values)
    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("adc", [CALIBRATED, DISTORTED], ids=["codes", "noise"])
def test_several_calls_are_one_batch_with_the_bits_of_one_after_the_other(name, adc, monkeypatch):
    monkeypatch.setattr(pytorch, "_AT_ONCE", {"cuda": 2**14, "cpu": 2**14})
    random = np.random.default_rng(5)
    held, inputs = random.normal(size=(4, 30, 9)), random.normal(size=(4, 40, 30))
    how = spec(adc, programming_sigma=0.01, read_sigma=0.01, rows=16)
    calls = [("activations", number) for number in range(4)]
    ranges, found = np.full(how.slices, 30.0, np.float32), []
    with using("float32"):
        for one, rows, call in zip(held, inputs, calls, strict=True):
            array = program_vmm(one, how, 1, *call)
            array.site = calls[0]
            found.append(array.multiply(rows, *call, ranges=ranges))
        shared = [
            array.multiply(rows, *call, ranges=ranges)
            for rows, call in zip(inputs, calls, strict=True)
        ]
    with using(name):
        each = program_each(held, how, 1, calls)
        assert each is not None
        for one, alone in ((each, found), (array, shared)):
            products = one.multiply_each(inputs, calls, ranges)
            np.testing.assert_array_equal(products.values, np.stack([p.values for p in alone]))
            np.testing.assert_array_equal(
                products.needed, np.max([p.needed for p in alone], axis=0)
            )
            assert products.clipped == sum(p.clipped for p in alone)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 20_000])
def test_draws_are_those_of_the_compiled_generator(count):
    key, places = 0xFEDCBA9876543210, np.array([0, 1, 2**33 + 5, -1])
    expected = np.empty((len(places), count), np.float32)
    fill_rows(np.uint64(key), places, expected)
    keys = torch.tensor(np.array([key], np.uint64).view(np.int64))
    found = pytorch.normal_rows(keys, torch.tensor(places), count)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_products_and_sums_are_rounded_once():
    random = np.random.default_rng(0)
    a, b, c = random.normal(size=(3, 4000)) * 2.0 ** random.integers(-30, 30, (3, 4000))
    # Sums that cancel, that hardly change, and that are half-way between two numbers.
    c[:1000], a[1000:2000] = -(a * b)[:1000], a[1000:2000] * 2.0**-60
    a[2000:2500], b[2000:2500], c[2000:2500] = 2.0**-53, 1.0, 1.0 + 2.0**-52 * np.arange(500)
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in zip(a, b, c, strict=True)]
    found = pytorch._fused64(*map(torch.tensor, (a, b, c))).numpy()
    np.testing.assert_array_equal(found, [float(value) for value in exact])
    a, b, c = (values.astype(np.float32) for values in (a, b, c))
    a[2000:2500], c[2000:2500] = 2.0**-24, 1.0 + 2.0**-23 * np.arange(500)
    found = pytorch._fused32(*map(torch.tensor, (a, b, c))).numpy()
    triples = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in triples]
    below = np.nextafter(found, np.float32(-np.inf)).tolist()
    above = np.nextafter(found, np.float32(np.inf)).tolist()
    for value, got, low, high in zip(exact, found.tolist(), below, above, strict=True):
        error = abs(value - Fraction(got))
        assert error <= min(abs(value - Fraction(low)), abs(value - Fraction(high)))
        if 2 * error == abs(Fraction(high) - Fraction(got)):
            assert np.float32(got).view(np.int32) % 2 == 0


def test_products_that_pytorch_may_cut_to_fewer_bits_are_exact_anyway(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    monkeypatch.setattr(torch, "matmul", _in_ten_bits(torch.matmul))
    weights = np.random.default_rng(1).normal(size=(200, 40))
    inputs = np.random.default_rng(2).normal(size=(9, 200))
    found = []
    for kernel in ("float32", "torch"):
        with using(kernel):
            array = program_vmm(weights, spec(programming_sigma=0.02), 1, "w")
            found.append(array.multiply(inputs).values)
    np.testing.assert_array_equal(found[1], found[0])


def _in_ten_bits(matmul):
    """What TensorFloat-32 does: float32 operands lose all but 10 bits of their mantissa."""

    def cut(x):
        if x.dtype != torch.float32:
            return x
        return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)

    return lambda a, b: matmul(cut(a), cut(b))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused():
    with pytest.raises(SettingsError, match=r"farm\.kernels=cuda: PyTorch sees no GPU"):
        kernels("cuda")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_run_with_kernels_of_pytorch_is_the_same_and_names_them(train, name):
    words = (
        "model=digits_mlp", "train.max_steps=2", "train.epochs=1", "farm.backend=inprocess",
        "farm.chips=1", "device.cell.read_sigma=0.01",
    )  # fmt: skip
    first, other = (train(*words, f"farm.kernels={which}") for which in ("float32", name))
    assert final_arrays(other) == final_arrays(first)
    assert json.loads((other / "result.json").read_text())["kernels"] == [name]
