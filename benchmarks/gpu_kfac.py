"""Measure a GPU for ``baseline=``: products, inversions, memory, and real K-FAC steps.

    python gpu_kfac.py --out conf/baseline/measured.yaml --name measured --board-w 700 \
        [--device cuda] [--network vgg16] [--batch 64] [--largest 8192]

Needs PyTorch and nothing else (repast_dist is not imported), and runs on any device PyTorch has.
It writes a baseline file whose efficiencies are shares of the peaks it measured, and prints the
time per phase of real K-FAC steps: forward, backward, factors, Cholesky inversion of blocks,
preconditioning, update. Products run as training runs them: TF32 where the device has it.
"""

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

PRODUCT_SIZES = (16, 64, 256, 1024, 4096, 8192)
INVERSE_SIZES = (64, 256, 1024, 4096, 8192)
NETWORKS = {
    "lenet": (1, 32, [6, "M", 16, "M"], [120, 84, 10]),
    "vgg16": (
        3,
        224,
        [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
        [4096, 4096, 1000],
    ),
}
DAMPING, LEARNING_RATE = 0.03, 1e-4


def main() -> None:
    """Measure, print, and write the file."""
    options = _options()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    device = torch.device(options.device)
    sizes = [n for n in PRODUCT_SIZES if n <= options.largest]
    products = {n: _product_rate(n, device) for n in sizes}
    inverses = {n: _inverse_rate(n, device) for n in INVERSE_SIZES if n <= options.largest}
    bandwidth, launch_s = _bandwidth(device, options.largest), _launch(device)
    print(f"device: {_device_name(device)}")
    for title, rates in (("products", products), ("inversions", inverses)):
        for size, rate in rates.items():
            print(f"{title:<11}{size:>6}  {rate / 1e12:8.3f} Tflop/s")
    print(f"memory     {bandwidth / 1e9:8.1f} GB/s    launch {launch_s * 1e6:.1f} us")
    phases = kfac_step(options.network, options.batch, options.block, device)
    print(f"K-FAC step of {options.network}, batch {options.batch}, blocks of {options.block}:")
    for phase, seconds in phases.items():
        print(f"  {phase:<13}{seconds * 1e3:10.2f} ms")
    text = baseline_yaml(options, _device_name(device), products, inverses, bandwidth, launch_s)
    options.out.write_text(text)
    print(f"wrote {options.out}")


def kfac_step(name: str, batch: int, block: int, device: torch.device) -> dict[str, float]:
    """Return the seconds per phase of a K-FAC step, the shortest of three.

    Factors follow the usual form: inputs (patches of convolutions) with a one for the bias, and
    gradients of the outputs, each split into diagonal blocks that are damped and inverted by
    Cholesky.
    """
    channels, edge, convolutions, dense = NETWORKS[name]
    model = _network(channels, edge, convolutions, dense).to(device)
    captured: dict[nn.Module, list[torch.Tensor]] = {}
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(_capture(captured))
    inputs = torch.randn(batch, channels, edge, edge, device=device)
    labels = torch.randint(dense[-1], (batch,), device=device)
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
    block: int,
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
            layer.weight -= LEARNING_RATE * direction[:, :-1].reshape(layer.weight.shape)
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
    layer: nn.Module, inputs: torch.Tensor, gradients: torch.Tensor, block: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    if isinstance(layer, nn.Conv2d):
        patches = nn.functional.unfold(inputs, layer.kernel_size, padding=layer.padding)
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
        errors = gradients.flatten(2).transpose(1, 2).reshape(-1, gradients.shape[1])
    else:
        rows, errors = inputs, gradients
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    return _blocks(rows, block), _blocks(errors, block)


def _blocks(rows: torch.Tensor, block: int) -> list[torch.Tensor]:
    return [part.T @ part / len(rows) for part in rows.split(block, dim=1)]


def _inverse(factor: torch.Tensor) -> torch.Tensor:
    damped = factor + DAMPING * torch.eye(len(factor), device=factor.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(damped))


def _precondition(layer: nn.Module, a: list[torch.Tensor], g: list[torch.Tensor]) -> torch.Tensor:
    gradient = torch.cat([layer.weight.grad.flatten(1), layer.bias.grad[:, None]], dim=1)
    rows = torch.cat(
        [inverse @ part for inverse, part in zip(g, gradient.split(len(g[0])), strict=True)]
    )
    columns = rows.split(len(a[0]), dim=1)
    return torch.cat([part @ inverse for inverse, part in zip(a, columns, strict=True)], dim=1)


def _network(channels: int, edge: int, convolutions: list, dense: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for item in convolutions:
        if item == "M":
            layers.append(nn.MaxPool2d(2))
            edge //= 2
        else:
            layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU()]
            channels = item
    layers.append(nn.Flatten())
    width = channels * edge * edge
    for place, outputs in enumerate(dense):
        layers.append(nn.Linear(width, outputs))
        if place < len(dense) - 1:
            layers.append(nn.ReLU())
        width = outputs
    return nn.Sequential(*layers)


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


def _inverse_rate(n: int, device: torch.device) -> float:
    """Return n^3 per second of a Cholesky factorisation and inversion."""
    root = torch.randn(n, n, device=device)
    matrix = root @ root.T / n + torch.eye(n, device=device)
    return n**3 / _time(lambda: torch.cholesky_inverse(torch.linalg.cholesky(matrix)), device)


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


def baseline_yaml(
    options: argparse.Namespace,
    device: str,
    products: dict[int, float],
    inverses: dict[int, float],
    bandwidth: float,
    launch_s: float,
) -> str:
    """Return the baseline file: measured peaks, and efficiencies as shares of them."""
    today = datetime.datetime.now(datetime.UTC).date()
    source = f"measured on {device} with benchmarks/gpu_kfac.py, torch {torch.__version__}, {today}"
    peak, inverse_peak = max(products.values()), max(inverses.values())

    def quantity(name: str, value: float, unit: str, text: str = source) -> str:
        return f'{name}: {{value: {value:.4e}, unit: "{unit}", source: "{text}", confidence: A}}\n'

    def points(name: str, rates: dict[int, float], best: float) -> str:
        shares = ", ".join(f"[{size}, {rate / best:.6f}]" for size, rate in rates.items())
        return f'{name}:\n  points: [{shares}]\n  source: "{source}"\n  confidence: A\n'

    return (
        f"# {device}, measured.\nkind: gpu\nname: {options.name}\n"
        + quantity("product_flops", peak, "1/s")
        + quantity("inverse_flops", inverse_peak, "1/s")
        + quantity("memory_bytes_per_s", bandwidth, "B/s")
        + quantity("memory_efficiency", 1.0, "1", "the bandwidth is the measured one")
        + quantity("board_w", options.board_w, "W", "given on the command line")
        + quantity("die_m2", options.die_mm2 * 1e-6, "m2", "given on the command line")
        + quantity("launch_s", launch_s, "s")
        + points("product_efficiency", products, peak)
        + points("inverse_efficiency", inverses, inverse_peak)
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="baseline file to write")
    parser.add_argument("--name", default="measured", help="name of the baseline")
    parser.add_argument("--board-w", type=float, required=True, help="board power in watts")
    parser.add_argument("--die-mm2", type=float, required=True, help="area of the die in mm2")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", choices=NETWORKS, default="vgg16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block", type=int, default=1024, help="widest block of a factor")
    parser.add_argument("--largest", type=int, default=8192, help="largest matrix measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
