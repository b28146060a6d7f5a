r"""Measure a GPU for ``baseline=`` and for ``study=validate``: kernels, and real K-FAC steps.

    python gpu_kfac.py --out measured --name my_gpu --board-w 700 --die-mm2 814 \
        [--device cuda] [--network resnet50] [--batch 64] [--block 0] [--tf32] [--largest 8192]

Needs PyTorch and nothing else (repast_dist is not imported), and runs on any device PyTorch has.
It measures products, convolutions, inversions, memory and launches, and the phases of real K-FAC
steps: forward, backward, soi (factors), Cholesky inversion, preconditioning, update. It writes two
files that a run finds with ``--config-dir measured``:

* ``baseline/my_gpu.yaml``: a baseline whose efficiencies are shares of the peaks that it measured,
* ``study/validate_my_gpu.yaml``: the measured times as rows of the validation, where the factors
  are whole (``study=validate_my_gpu``).

Convolutions run in TF32 where the device has it, as PyTorch has it; other products do with --tf32.
"""

import argparse
import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

PRODUCT_SIZES = (16, 64, 256, 1024, 4096, 8192)
CONVOLUTION_SIZES = (16, 64, 128, 256, 512)
INVERSE_SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
INTERVALS = (1, 10, 30)
DAMPING, LEARNING_RATE = 0.03, 1e-4


def main() -> None:
    """Measure, print, and write the files."""
    options = _options()
    device = torch.device(options.device)
    print(f"device: {_device_name(device)}")
    figures = measured_figures(options, device)
    phases = kfac_step(options.network, options.batch, options.block or None, device)
    what = f"blocks of {options.block}" if options.block else "whole factors"
    print(f"K-FAC step of {options.network}, batch {options.batch}, {what}:")
    for phase, seconds in phases.items():
        print(f"  {phase:<13}{seconds * 1e3:10.2f} ms")
    source = (
        f"measured on {_device_name(device)} with benchmarks/gpu_kfac.py, torch "
        f"{torch.__version__}, {datetime.datetime.now(datetime.UTC).date()}"
    )
    files = {"baseline": (f"{options.name}.yaml", baseline_yaml(options, figures, source))}
    if not options.block:
        text = validate_yaml(options, figures["inverses"], phases, source)
        files["study"] = (f"validate_{options.name}.yaml", text)
    for folder, (name, text) in files.items():
        path = options.out / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path}")


def measured_figures(options: argparse.Namespace, device: torch.device) -> dict:
    """Return and print the rates of products and convolutions per smallest dimension, the seconds
    of inversions per width, bytes per second, and the seconds of a launch.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    full = max(_product_rate(n, device) for n in PRODUCT_SIZES if n <= options.largest)
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    figures = {
        "full": full,
        "products": {n: _product_rate(n, device) for n in PRODUCT_SIZES if n <= options.largest},
        "convolutions": {
            n: _convolution_rate(n, device) for n in CONVOLUTION_SIZES if n <= options.largest
        },
        "inverses": {n: _inverse_s(n, device) for n in INVERSE_SIZES if n <= options.largest},
        "bandwidth": _bandwidth(device, options.largest),
        "launch": _launch(device),
    }
    for title in ("products", "convolutions"):
        for size, rate in figures[title].items():
            print(f"{title:<13}{size:>6}  {rate / 1e12:8.3f} Tflop/s")
    for size, seconds in figures["inverses"].items():
        print(f"inversion    {size:>6}  {seconds * 1e3:8.3f} ms")
    print(f"memory {figures['bandwidth'] / 1e9:.1f} GB/s, launch {figures['launch'] * 1e6:.1f} us")
    return figures


def kfac_step(name: str, batch: int, block: int | None, device: torch.device) -> dict[str, float]:
    """Return the seconds per phase of a K-FAC step, the shortest of three.

    Factors follow the usual form: inputs (patches of convolutions) with a one for the bias, and
    gradients of the outputs, each split into diagonal blocks that are damped and inverted by
    Cholesky. Empirical Fisher: the gradients are those of the labels.
    """
    make, channels, edge, classes = NETWORKS[name]
    model = make().to(device)
    captured: dict[nn.Module, list[torch.Tensor]] = {}
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(_capture(captured))
    inputs = torch.randn(batch, channels, edge, edge, device=device)
    labels = torch.randint(classes, (batch,), device=device)
    best: dict[str, float] = {}
    for _ in range(3):
        for phase, seconds in _one_step(model, layers, captured, inputs, labels, block).items():
            best[phase] = min(seconds, best.get(phase, seconds))
    return best


def _one_step(
    model: nn.Module,
    layers: list[nn.Module],
    captured: dict[nn.Module, list[torch.Tensor]],
    inputs: torch.Tensor,
    labels: torch.Tensor,
    block: int | None,
) -> dict[str, float]:
    clock = _Clock(inputs.device)
    loss = nn.functional.cross_entropy(model(inputs), labels)
    clock.lap("forward")
    loss.backward()
    clock.lap("backward")
    factors = [_factors(layer, *captured[layer], block) for layer in layers]
    clock.lap("soi")
    inverses = [[[_inverse(f) for f in side] for side in sides] for sides in factors]
    clock.lap("inversion")
    directions = [
        _precondition(layer, *sides) for layer, sides in zip(layers, inverses, strict=True)
    ]
    clock.lap("precondition")
    with torch.no_grad():
        for layer, direction in zip(layers, directions, strict=True):
            width = layer.weight[0].numel()
            layer.weight -= LEARNING_RATE * direction[:, :width].reshape(layer.weight.shape)
            if layer.bias is not None:
                layer.bias -= LEARNING_RATE * direction[:, -1]
    model.zero_grad(set_to_none=True)
    captured.clear()
    clock.lap("update")
    return clock.laps


def _capture(captured: dict[nn.Module, list[torch.Tensor]]) -> Callable[..., None]:
    def keep(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        captured[layer] = [inputs[0].detach()]
        output.register_hook(lambda gradient: captured[layer].append(gradient.detach()))

    return keep


def _factors(
    layer: nn.Module, inputs: torch.Tensor, gradients: torch.Tensor, block: int | None
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    if isinstance(layer, nn.Conv2d):
        patches = nn.functional.unfold(
            inputs, layer.kernel_size, padding=layer.padding, stride=layer.stride
        )
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
        errors = gradients.flatten(2).transpose(1, 2).reshape(-1, gradients.shape[1])
    else:
        rows, errors = inputs, gradients
    if layer.bias is not None:
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    return _blocks(rows, block), _blocks(errors, block)


def _blocks(rows: torch.Tensor, block: int | None) -> list[torch.Tensor]:
    parts = rows.split(block or rows.shape[1], dim=1)
    return [part.T @ (part / len(rows)) for part in parts]


def _inverse(factor: torch.Tensor) -> torch.Tensor:
    damped = factor + DAMPING * torch.eye(len(factor), device=factor.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(damped))


def _precondition(layer: nn.Module, a: list[torch.Tensor], g: list[torch.Tensor]) -> torch.Tensor:
    gradient = layer.weight.grad.flatten(1)
    if layer.bias is not None:
        gradient = torch.cat([gradient, layer.bias.grad[:, None]], dim=1)
    rows = torch.cat(
        [inverse @ part for inverse, part in zip(g, gradient.split(len(g[0])), strict=True)]
    )
    columns = rows.split(len(a[0]), dim=1)
    return torch.cat([part @ inverse for inverse, part in zip(a, columns, strict=True)], dim=1)


def _lenet5() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def _vgg16() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(4096, 1000))


class _Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        wide = 4 * width
        self.path = nn.Sequential(
            *(nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide)),
        )
        self.shortcut = nn.Sequential()
        if before != wide or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
            )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(values) + self.shortcut(values))


def _resnet50() -> nn.Module:
    layers: list[nn.Module] = [
        *(nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    channels = 64
    for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(count):
            stride = 2 if number == 0 and width > 64 else 1
            layers.append(_Bottleneck(channels, width, stride))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


NETWORKS = {
    "lenet5": (_lenet5, 1, 32, 10),
    "vgg16": (_vgg16, 3, 224, 1000),
    "resnet50": (_resnet50, 3, 224, 1000),
}
"""Networks that repast_dist has a table of: how to make one, channels, edge and classes."""


class _Clock:
    """Times what was queued on a device since the last lap."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.laps: dict[str, float] = {}
        _wait(device)
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        _wait(self._device)
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def _product_rate(n: int, device: torch.device) -> float:
    """Return operations per second of (4096, n) times (n, 4096): n is the smallest dimension."""
    outer = max(n, 4096) if device.type != "cpu" else max(n, 512)
    left, right = torch.randn(outer, n, device=device), torch.randn(n, outer, device=device)
    return 2.0 * outer * outer * n / _time(lambda: left @ right, device)


def _convolution_rate(n: int, device: torch.device) -> float:
    """Return operations per second of a 3 x 3 convolution of n channels to n channels."""
    edge = max(8, 4096 // n) if device.type != "cpu" else 8
    layer = nn.Conv2d(n, n, 3, padding=1, bias=False, device=device)
    inputs = torch.randn(16, n, edge, edge, device=device)
    with torch.no_grad():
        return 2.0 * 16 * edge * edge * 9 * n * n / _time(lambda: layer(inputs), device)


def _inverse_s(n: int, device: torch.device) -> float:
    """Return the seconds of a Cholesky factorisation and inversion."""
    root = torch.randn(n, n, device=device)
    matrix = root @ root.T / n + torch.eye(n, device=device)
    return _time(lambda: torch.cholesky_inverse(torch.linalg.cholesky(matrix)), device)


def inversion_fit(times_s: dict[int, float]) -> tuple[float, float]:
    """Return the time per column and the rate of n^3 operations that fit the times best, each
    weighed by its own size.
    """
    n = torch.tensor(list(times_s), dtype=torch.float64)
    seconds = torch.tensor(list(times_s.values()), dtype=torch.float64)
    terms = torch.stack([n / seconds, n**3 / seconds], dim=1)
    column, cube = torch.linalg.lstsq(terms, torch.ones(len(n), 1, dtype=torch.float64)).solution
    if cube <= 0:  # all of them are too small for their operations to count
        return float(terms[:, 0].sum() / (terms[:, 0] ** 2).sum()), float((n**3 / seconds).max())
    return max(0.0, float(column)), 1 / float(cube)


def _bandwidth(device: torch.device, largest: int) -> float:
    source = torch.randn(largest * 8192, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / _time(lambda: target.copy_(source), device)


def _launch(device: torch.device) -> float:
    one = torch.zeros(1, device=device)
    return _time(lambda: [one.add_(1) for _ in range(100)], device) / 100


def _time(work: Callable[[], object], device: torch.device) -> float:
    work()
    times = []
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def baseline_yaml(options: argparse.Namespace, figures: dict, source: str) -> str:
    """Return the baseline file: measured peaks, and efficiencies as shares of them."""
    column_s, cubes_per_s = inversion_fit(figures["inverses"])
    # Measured noise must not make a share of more than 1.
    inverse_peak = max(figures["full"], cubes_per_s)

    def quantity(name: str, value: float, unit: str, text: str = source) -> str:
        return f'{name}: {{value: {value:.4e}, unit: "{unit}", source: "{text}", confidence: A}}\n'

    def points(name: str, rates: dict[int, float]) -> str:
        best = max(rates.values())
        shares = ", ".join(f"[{size}, {rate / best:.6f}]" for size, rate in rates.items())
        return f'{name}:\n  points: [{shares}]\n  source: "{source}"\n  confidence: A\n'

    return (
        f"# A GPU, {source}.\nkind: gpu\nname: {options.name}\n"
        + quantity("product_flops", max(figures["products"].values()), "1/s")
        + quantity("convolution_flops", max(figures["convolutions"].values()), "1/s")
        + quantity("inverse_flops", inverse_peak, "1/s")
        + quantity("memory_bytes_per_s", figures["bandwidth"], "B/s")
        + quantity("memory_efficiency", 1.0, "1", "the bandwidth is the measured one")
        + quantity("board_w", options.board_w, "W", "given on the command line")
        + quantity("die_m2", options.die_mm2 * 1e-6, "m2", "given on the command line")
        + quantity("launch_s", figures["launch"], "s")
        + points("product_efficiency", figures["products"])
        + points("convolution_efficiency", figures["convolutions"])
        + "inversion:\n  "
        + quantity("operations", 1.0, "1", "torch.cholesky_inverse: n^3")
        + "  "
        + quantity("efficiency", cubes_per_s / inverse_peak, "1")
        + "  "
        + quantity("column_s", column_s, "s")
    )


def validate_yaml(
    options: argparse.Namespace, inverses: dict[int, float], phases: dict[str, float], source: str
) -> str:
    """Return a validation whose rows are what was measured; only inverses were fitted to."""
    lines = [
        f"# study=validate with what was {source}.",
        "defaults:",
        "  - validate",
        f"  - /baseline@gpus.{options.name}: {options.name}",
        "  - _self_",
        "anchors:",
    ]
    for kind, subject, value, unit, fitted in _rows(options, inverses, phases):
        what = f"kind: {kind}, subject: {options.name} {subject}, value: {value:.4e}"
        lines.append(f'  - {{{what}, unit: "{unit}"{fitted}, tolerance: 0.2, source: "{source}"}}')
    return "\n".join(lines) + "\n"


def _rows(
    options: argparse.Namespace, inverses: dict[int, float], phases: dict[str, float]
) -> Iterator[tuple[str, str, float, str, str]]:
    """Yield kind, subject, value, unit and further fields of every row."""
    for size, seconds in inverses.items():
        yield "GPU inversion", str(size), seconds, "s", ", fitted: true"
    network, batch = options.network, f", batch: {options.batch}"
    for phase, seconds in phases.items():
        yield "GPU K-FAC phase", f"{network} {phase}", seconds, "s", batch
    first = sum(phases[name] for name in ("forward", "backward", "update"))
    for every in INTERVALS:
        renewed = (phases["soi"] + phases["inversion"]) / every
        ratio = (first + phases["precondition"] + renewed) / first
        yield "GPU K-FAC over first order", network, ratio, "1", f"{batch}, interval: {every}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--name", default="measured", help="name of the baseline")
    parser.add_argument("--board-w", type=float, required=True, help="board power in watts")
    parser.add_argument("--die-mm2", type=float, required=True, help="area of the die in mm2")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", choices=NETWORKS, default="resnet50")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block", type=int, default=0, help="widest block; 0: whole factors")
    parser.add_argument("--tf32", action="store_true", help="all products in TF32")
    parser.add_argument("--largest", type=int, default=8192, help="largest matrix measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
