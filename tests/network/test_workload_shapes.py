"""Layer shapes: what follows from K, M and S."""

import pydantic
import pytest

from repast_dist.network import LayerShape, Workload, kinds


def test_a_convolution_counts_im2col_products():
    # 3 x 3 over 64 channels to 128 on 56 x 56 positions.
    layer = LayerShape(
        name="conv",
        kind=kinds.CONV,
        in_features=9 * 64,
        out_features=128,
        vectors_per_sample=56 * 56,
    )
    assert layer.macs_per_sample == 3 * 3 * 64 * 128 * 56 * 56
    assert layer.parameter_count == 3 * 3 * 64 * 128 + 128
    assert (layer.factor_a_size, layer.factor_g_size) == (577, 128)


def test_a_depthwise_convolution_has_one_small_matrix_per_channel():
    layer = LayerShape(
        name="dw",
        kind=kinds.DEPTHWISE_CONV,
        in_features=9,
        out_features=1,
        groups=32,
        vectors_per_sample=100,
        bias=False,
        preconditioned=False,
    )
    assert layer.parameter_count == 9 * 32
    assert layer.macs_per_sample == 9 * 32 * 100


def test_shared_weights_are_counted_once():
    first = LayerShape(name="embed", kind=kinds.DENSE, in_features=8, out_features=5, bias=False)
    again = LayerShape(
        name="head",
        kind=kinds.DENSE,
        in_features=8,
        out_features=5,
        bias=False,
        shares_weights_with="embed",
    )
    assert Workload(name="tied", layers=(first, again)).parameter_count == 40


def test_layer_names_must_differ():
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=1, out_features=1)
    with pytest.raises(pydantic.ValidationError, match="used twice"):
        Workload(name="w", layers=(layer, layer))


def test_layers_without_factors_cannot_be_preconditioned():
    with pytest.raises(pydantic.ValidationError, match="has no SOI factors"):
        LayerShape(name="m", kind=kinds.MATMUL, in_features=4, out_features=4)
