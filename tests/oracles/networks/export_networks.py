"""Writes the graphs of networks, without their weights, and what torch counts of them.

``python tests/oracles/networks/export_networks.py [NAME ...]`` needs torch, torchvision,
transformers and onnxscript, of which the package and its tests need none. Weights are random; what
is kept of a tensor of more than 256 numbers is its name, type and shape. Multiplications are those
of `torch.utils.flop_counter` (half of its floating-point operations), with attention by separate
products; those of recurrent layers, which it does not see, by the formula of their cells.
"""

import contextlib
import json
import lzma
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
import torchvision
import transformers
from onnx import TensorProto
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

FOLDER = Path(__file__).parent
COUNTS = FOLDER / "counts.json"
_KEPT_NUMBERS = 256
_SCOPES = "pkg.torch.onnx.name_scopes"

Made = tuple[nn.Module, tuple[Any, ...]]


class Logits(nn.Module):
    """A network of transformers as a function of tensors to a tensor."""

    def __init__(self, model: nn.Module, *names: str) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        # With masks, nothing asks where sequences are packed, which one exporter cannot export.
        masks = {
            name.replace("input_ids", "attention_mask"): torch.ones_like(tokens)
            for name, tokens in given.items()
            if name.endswith("input_ids")
        }
        return self.model(**given, **masks, use_cache=False).logits


class Experts(nn.Module):
    """Layers of four experts as one einsum each, of which a softmax mixes the two best."""

    def __init__(self, width: int = 64, inner: int = 256, experts: int = 4, vocabulary: int = 1000):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, inner))
        self.gate = nn.Parameter(torch.randn(experts, width, inner))
        self.down = nn.Parameter(torch.randn(experts, inner, width))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        scores = self.router(x)
        best = torch.topk(scores, 2, dim=-1).values[..., -1:]
        share = torch.softmax(torch.where(scores >= best, scores, -1e9), dim=-1)
        up = torch.einsum("btd,edf->btef", x, self.up)
        gate = torch.einsum("btd,edf->btef", x, self.gate)
        each = torch.einsum("btef,efd->bted", up * torch.sigmoid(gate) * gate, self.down)
        return self.head(torch.einsum("bted,bte->btd", each, share))


class Recurrent(nn.Module):
    """Two recurrent layers and a classifier of the last state."""

    def __init__(self, kind: str, bidirectional: bool = False) -> None:
        super().__init__()
        self.cells = getattr(nn, kind)(
            128, 256, num_layers=2, batch_first=True, bidirectional=bidirectional
        )
        self.head = nn.Linear(256 * (1 + bidirectional), 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x)[0][:, -1])


class UNet(nn.Module):
    """Two levels down and up again, with transposed convolutions and batch norm."""

    def __init__(self) -> None:
        super().__init__()

        def block(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
                nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            )  # fmt: skip

        self.down1, self.down2, self.middle = block(3, 32), block(32, 64), block(64, 128)
        self.up2, self.up1 = nn.ConvTranspose2d(128, 64, 2, 2), nn.ConvTranspose2d(64, 32, 2, 2)
        self.join2, self.join1 = block(128, 64), block(64, 32)
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        x = self.middle(nn.functional.max_pool2d(second, 2))
        x = self.join2(torch.cat([self.up2(x), second], 1))
        return self.head(self.join1(torch.cat([self.up1(x), first], 1)))


def _vision(name: str, size: int = 224, batch: int = 1) -> Made:
    model = getattr(torchvision.models, name)(weights=None)
    return model, (torch.randn(batch, 3, size, size),)


def _tokens(count: int, vocabulary: int, batch: int = 1) -> torch.Tensor:
    return torch.randint(0, vocabulary, (batch, count))


def _gpt2() -> Made:
    config = transformers.GPT2Config(attn_pdrop=0, resid_pdrop=0, embd_pdrop=0)
    return Logits(transformers.GPT2LMHeadModel(config), "input_ids"), (_tokens(128, 50257),)


def _bert() -> Made:
    config = transformers.BertConfig(hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    model = transformers.BertForPreTraining(config)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            made = self.model(tokens)
            return made.prediction_logits, made.seq_relationship_logits

    return Both(), (_tokens(128, 30522),)


def _t5() -> Made:
    config = transformers.T5Config(
        d_model=512, d_ff=2048, num_layers=6, num_heads=8, d_kv=64, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    # What scaled_dot_product_attention returns here cannot be reshaped by one exporter.
    config._attn_implementation = "eager"
    model = transformers.T5ForConditionalGeneration(config)
    tokens = _tokens(64, config.vocab_size), _tokens(32, config.vocab_size)
    return Logits(model, "input_ids", "decoder_input_ids"), tokens


def _whisper() -> Made:
    config = transformers.WhisperConfig(
        d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6,
        decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536, dropout=0.0,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    inputs = torch.randn(1, 80, 3000), _tokens(32, config.vocab_size)
    return Logits(model, "input_features", "decoder_input_ids"), inputs


def _llama() -> Made:
    config = transformers.LlamaConfig(
        vocab_size=8000, hidden_size=512, intermediate_size=1376, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4,
    )  # fmt: skip
    return Logits(transformers.LlamaForCausalLM(config), "input_ids"), (_tokens(64, 8000),)


def _encoder() -> Made:
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0)
    return nn.TransformerEncoder(layer, 4), (torch.randn(50, 2, 256),)


NETWORKS: dict[str, Callable[[], Made]] = {
    "gpt2_small": _gpt2,
    "bert_pretraining": _bert,
    "vit_b16": lambda: _vision("vit_b_16", batch=2),
    "swin_t": lambda: _vision("swin_t"),
    "transformer_encoder": _encoder,
    "t5_small": _t5,
    "whisper_tiny": _whisper,
    "llama_style": _llama,
    "mixture_of_experts": lambda: (Experts(), (_tokens(32, 1000, batch=2),)),
    "lstm": lambda: (Recurrent("LSTM"), (torch.randn(2, 40, 128),)),
    "gru": lambda: (Recurrent("GRU"), (torch.randn(1, 40, 128),)),
    "rnn": lambda: (Recurrent("RNN"), (torch.randn(1, 40, 128),)),
    "bilstm": lambda: (Recurrent("LSTM", bidirectional=True), (torch.randn(1, 40, 128),)),
    "unet": lambda: (UNet(), (torch.randn(1, 3, 64, 64),)),
    "maxvit_t": lambda: _vision("maxvit_t"),
    "mobilenet_v3": lambda: _vision("mobilenet_v3_large"),
    "convnext_t": lambda: _vision("convnext_tiny"),
    "resnext50": lambda: _vision("resnext50_32x4d"),
}

BATCH_AXIS = {"transformer_encoder": 1}
"""Axis of the first input that counts samples, where it is not the first."""

FOLDED = ("mobilenet_v3",)
"""Networks whose batch norms are folded into the convolutions, as both exporters do by default."""


def count(name: str, model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Return torch's parameters and multiplications per sample."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        model(*inputs)
    batch = inputs[0].shape[BATCH_AXIS.get(name, 0)]
    macs = counter.get_total_flops() / 2
    if isinstance(model, Recurrent):
        # Products of cells are counted by formula: the counter sees some versions' and not others'.
        macs = 0
        cells = model.cells
        directions = 1 + cells.bidirectional
        gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[type(cells)]
        steps, hidden = inputs[0].shape[1], cells.hidden_size
        for layer in range(cells.num_layers):
            width = cells.input_size if layer == 0 else hidden * directions
            macs += directions * gates * hidden * (width + hidden) * steps * batch
        macs += model.head.weight.numel() * batch
    assert macs % batch == 0
    folded = name in FOLDED
    counted = fuse(model.eval()) if folded else model
    return {
        "parameters": sum(p.numel() for p in counted.parameters()),
        "macs": int(macs) // batch,
        "batch": batch,
        "batch_axis": BATCH_AXIS.get(name, 0),
        "folded": folded,
    }


def export(
    name: str, model: nn.Module, inputs: tuple[Any, ...], exporter: str, path: Path
) -> onnx.ModelProto:
    """Return the graph that one of torch's exporters makes, batch norms as `FOLDED` says."""
    folded = name in FOLDED
    if exporter == "dynamo":
        torch.onnx.export(model.eval(), inputs, path, dynamo=True, optimize=folded, verbose=False)
    else:
        mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.TRAINING
        torch.onnx.export(
            model, inputs, path, dynamo=False, opset_version=17, training=mode,
            do_constant_folding=folded,
        )  # fmt: skip
    return onnx.load(path, load_external_data=False)


def distinguish(model: nn.Module) -> None:
    """Give tensors that begin as zeros or ones numbers of their own: exporters join equal ones."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.numel() > 1 and tensor.std() == 0:
                tensor.add_(0.1 * torch.rand_like(tensor))


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out all numbers but those of small tensors, and what no reader needs."""
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        node.doc_string = ""
        scopes = [item.value for item in node.metadata_props if item.key == _SCOPES]
        del node.metadata_props[:]
        if scopes:
            node.metadata_props.add(key=_SCOPES, value=scopes[0])
        tensors += [item.t for item in node.attribute if item.HasField("t")]
    for tensor in tensors:
        size = 1
        for edge in tensor.dims:
            size *= edge
        tensor.doc_string = ""
        if size > _KEPT_NUMBERS:
            for field in ("raw_data", "float_data", "int64_data", "int32_data", "double_data",
                          "external_data"):  # fmt: skip
                tensor.ClearField(field)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="not kept")
    for item in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    return model


def main() -> None:
    """Export the named networks, or all, and bring the counts up to date."""
    warnings.simplefilter("ignore")
    counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    for name in sys.argv[1:] or NETWORKS:
        torch.manual_seed(0)
        model, inputs = NETWORKS[name]()
        distinguish(model)
        counts[name] = count(name, model.train(), inputs) | {"not_exported": []}
        for exporter in ("dynamo", "torchscript"):
            target = FOLDER / f"{name}.{exporter}.onnx.xz"
            try:
                with tempfile.TemporaryDirectory() as folder:
                    # Exporters print what they do.
                    with contextlib.redirect_stdout(sys.stderr):
                        made = export(name, model, inputs, exporter, Path(folder) / "net.onnx")
                    data = strip(made).SerializeToString(deterministic=True)
            except Exception as error:
                print(name, exporter, "not exported:", str(error).splitlines()[0][:200])
                counts[name]["not_exported"].append(exporter)
                continue
            target.write_bytes(lzma.compress(data, preset=9))
            print(name, exporter, len(made.graph.node), "nodes", target.stat().st_size, "bytes")
        COUNTS.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
