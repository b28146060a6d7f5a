"""Published networks: parameters and multiply-accumulates as published."""

import pytest

from repast_dist.network import kinds
from repast_dist.network.tables import network_table

PUBLISHED_PARAMETERS = {
    # torchvision model pages, exact.
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "vit_b16": 86_567_656,
    # Hugging Face checkpoints bert-base-uncased, bert-large-uncased, gpt2.
    "bert_base": 109_482_240,
    "bert_large": 335_141_888,
    "gpt2_small": 124_439_808,
    # pytorch-cifar, WideResNet-pytorch; timm: vit_tiny_patch16_224, mixer_b16_224.
    "resnet18_cifar": 11_173_962,
    "wrn28_10": 36_479_194,
    "vit_tiny16": 5_717_416,
    "mixer_b16": 59_880_472,
    # By hand, from the widths of ASDL's examples.
    "mlp_2048": 784 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 10 + 10,
    # LeNet-5 with full connections, as commonly reimplemented.
    "lenet5": 61_706,
}

PUBLISHED_MACS = {
    # torchvision model pages (GFLOPS there counts multiply-adds).
    "vgg13": 11.31e9,
    "vgg16": 15.47e9,
    "vgg19": 19.63e9,
    "resnet18": 1.81e9,
    "resnet34": 3.66e9,
    "resnet50": 4.09e9,
    "resnet101": 7.80e9,
    "resnet152": 11.51e9,
    "densenet121": 2.83e9,
    "vit_b16": 17.56e9,
    # He et al. 2015, table 3: 1.90, 2.32 and 5.30 x 10^10.
    "msra1": 1.90e10,
    "msra2": 2.32e10,
    "msra3": 5.30e10,
    # TinyBERT (2020): 22.5 GFLOP at 128 tokens; BERT-large scales by its 24 blocks of 1,024.
    "bert_base": 22.5e9 / 2,
    # WRN-28-10: 5.2 billion (Zagoruyko and Komodakis, 2016); MLP-Mixer B/16: 12.6 (timm).
    "wrn28_10": 5.24e9,
    "mixer_b16": 12.6e9,
    # nanoGPT's sizing of GPT-2 at 1,024 tokens: 291,648,307,200 FLOP.
    "gpt2_small": 145.824e9,
    "lenet5": 416_520,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED_PARAMETERS.items())
def test_parameters_equal_the_published_count(name, parameters):
    assert network_table(name).parameter_count == parameters


@pytest.mark.parametrize(("name", "macs"), PUBLISHED_MACS.items())
def test_multiplications_are_within_one_percent_of_the_published_count(name, macs):
    tolerance = 0.02 if name == "bert_base" else 0.01
    assert network_table(name).macs_per_sample == pytest.approx(macs, rel=tolerance)


@pytest.mark.parametrize(("name", "millions"), [("msra1", 178), ("msra2", 183), ("msra3", 330)])
def test_msra_networks_have_the_millions_of_parameters_isaac_gives(name, millions):
    assert network_table(name).parameter_count / 1e6 == pytest.approx(millions, abs=1)


def test_attention_products_hold_no_weights():
    layers = network_table("bert_base").layers
    attention = [layer for layer in layers if layer.kind == kinds.MATMUL]
    assert len(attention) == 24
    assert sum(layer.parameter_count for layer in attention) == 0
    # 2 x 128^2 x 768 per block.
    assert sum(layer.macs_per_sample for layer in attention) == 12 * 2 * 128 * 128 * 768
