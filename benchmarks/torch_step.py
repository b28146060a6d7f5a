"""Wall time of training steps of PyTorch networks on the simulated arrays.

    python benchmarks/torch_step.py [--steps 5] [--resnet-samples 128] [--device cuda]

Needs the extra ``torch``; the extra ``fast`` makes products fast on processors that have matrix
units. Two questions, each answered in one process, in turn, one thread:

* A step of a small CNN by SGD whose forward products take 8-bit inputs in one pass, 8-bit weights
  in one slice and one 8-bit conversion, with exact backward products: the fidelity of AIHWKit's
  ``TorchInferenceRPUConfig``, which is timed beside it where it is installed.
* A step of K-FAC of ResNet-20 on images of 32 x 32, everything on arrays, over the same in float64.

Times are of the process (CPU seconds): other work on the machine disturbs them least.

With ``--device cuda``, a third one: the K-FAC step on arrays with the module and the products on
a GPU, over the same on the processor, in seconds of wall time, and by how much losses differ.
"""

import argparse
import importlib.util
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch import nn

import repast_dist as rd
import repast_dist.torch as rt
from repast_dist.analog.kernels.chosen import using

BATCH = 64
_ONE_PASS = {
    "chip.weight_bits": 8,
    "chip.input_bits": 8,
    "chip.dac.bits": 7,
    "chip.residual.adc.bits": 13,
    "device.cell.bits": 7,
    "device.cell.programming_sigma": 0.0,
}
_EXACT_BACKWARD = {
    "engine.backward": "float64",
    "engine.gradient": "float64",
}


def small_cnn() -> nn.Module:
    """Return a network for images of 28 x 28 (LeNet-5's shape, LeCun et al. 1998)."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        same = before == after
        self.down = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.down(x))


def resnet20() -> nn.Module:
    """Return ResNet-20 for ten classes."""
    torch.manual_seed(0)
    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [
        Block(before, after, 2 if after > before else 1)
        for before, after in itertools.pairwise(widths)
    ]
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def stepper(
    network: nn.Module, optimizer: Any, inputs: torch.Tensor, labels: torch.Tensor
) -> Callable[[], None]:
    """Return a training step."""

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()

    return step


def in_turn(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the fewest CPU seconds of each, timed in turn; the first round is not counted."""
    best = dict.fromkeys(steps, float("inf"))
    for number in range(repeats + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if number:
                best[name] = min(best[name], time.process_time() - started)
    return best


def forward_steps() -> dict[str, Callable[[], None]]:
    """Return a step of the small CNN for every way to compute it."""
    data = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    hardware = rd.load_hardware("repast", "reram", _ONE_PASS)
    steps = {}
    for name in ("PyTorch", "repast_dist, one 8-bit pass", "repast_dist, float64"):
        network = small_cnn()
        if name == "repast_dist, float64":
            rt.convert(network, hardware, engine="float64")
        elif name != "PyTorch":
            rt.convert(network, hardware, _EXACT_BACKWARD, exact_in="tensors")
        steps[name] = stepper(network, torch.optim.SGD(network.parameters(), lr=0.01), *data)
    if importlib.util.find_spec("aihwkit"):
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.optim import AnalogSGD
        from aihwkit.simulator.configs import TorchInferenceRPUConfig

        analog = convert_to_analog(small_cnn(), TorchInferenceRPUConfig())
        steps["AIHWKit"] = stepper(analog, AnalogSGD(analog.parameters(), lr=0.01), *data)
    return steps


def resnet_steps(samples: int) -> dict[str, Callable[[], None]]:
    """Return a step of ResNet-20 by K-FAC in float64 and on arrays."""
    data = torch.randn(samples, 3, 32, 32), torch.randint(0, 10, (samples,))
    hardware = rd.load_hardware("repast", "reram")
    steps = {}
    for name, engine in (("float64", "float64"), ("on arrays", "analog")):
        network = rt.convert(resnet20(), hardware, engine=engine)
        steps[name] = stepper(network, rt.KFAC(network, lr=0.01), *data)
    return steps


def on_device(
    make: Callable[[], nn.Module], inputs: torch.Tensor, device: torch.device, steps: int
) -> tuple[float, list[float]]:
    """Return the shortest wall time of a K-FAC step on arrays after the first, and the losses.

    Modules are on a device, and so are products on arrays.
    """
    kernels = "cuda" if device.type == "cuda" else "auto"
    network = rt.convert(make().to(device), rd.load_hardware("repast", "reram"))
    optimizer = rt.KFAC(network, lr=0.01)
    labels = (torch.arange(len(inputs)) % 10).to(device)
    best, losses = float("inf"), []
    with using(kernels):
        for number in range(steps + 1):
            started = time.perf_counter()
            optimizer.zero_grad()
            loss = F.cross_entropy(network(inputs.to(device)), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))  # waits for the device
            if number:
                best = min(best, time.perf_counter() - started)
    return best, losses


def compare_devices(device: torch.device, samples: int, steps: int) -> None:
    """Print the step of ResNet-20 on the processor and on a device."""
    inputs = torch.randn(samples, 3, 32, 32)
    found = {
        str(where): on_device(resnet20, inputs, where, steps)
        for where in (torch.device("cpu"), device)
    }
    (_, ours), (_, theirs) = found["cpu"], found[str(device)]
    apart = max(abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True))
    title = f"A K-FAC step of ResNet-20 on arrays, {samples} samples; losses differ by {apart:.1e}"
    show(title, {name: seconds for name, (seconds, _) in found.items()}, "cpu", "wall s")


def show(title: str, seconds: dict[str, float], over: str, unit: str = "CPU s") -> None:
    """Print times, and their ratio to one of them."""
    table = Table(title=title, title_justify="left")
    for name in ("step", unit, f"over {over}"):
        table.add_column(name, justify="left" if name == "step" else "right", no_wrap=True)
    for name, value in seconds.items():
        table.add_row(name, f"{value:.3f}", f"{value / seconds[over]:.2f}")
    Console(width=100).print(table)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--resnet-samples", type=int, default=128)
    parser.add_argument("--device", default="cpu", help="a device to compare with the processor")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        found = in_turn(forward_steps(), given.steps)
        over = "AIHWKit" if "AIHWKit" in found else "PyTorch"
        show(f"A step of a small CNN, {BATCH} samples", found, over)
        steps = resnet_steps(given.resnet_samples)
        title = f"A K-FAC step of ResNet-20, {given.resnet_samples} samples"
        show(title, in_turn(steps, max(given.steps // 2, 1)), "float64")
        if given.device != "cpu":
            compare_devices(torch.device(given.device), given.resnet_samples, given.steps)


if __name__ == "__main__":
    main()
