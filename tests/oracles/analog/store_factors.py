"""Store Kronecker factors of real training runs in factors.npz, for tests of inversion.

Run from the top of the repository: ``python tests/oracles/analog/store_factors.py``. Each entry is
``<network>/<layer>/<factor>[/<start>]``; the file holds the upper triangle of the undamped running
average as float32, and beside it (``.../gradient``) the gradient of the last step from the
factor's side, and (``.../damping``) what the network's default damping adds to the diagonal.
"""

from pathlib import Path

import numpy as np
import yaml

from repast_dist.ground.spec import load
from repast_dist.network.model import ModelSpec
from repast_dist.studies.factors import Factor, capture_factors
from repast_dist.training.datasets import DATASETS
from repast_dist.training.optimizers import OPTIMIZERS
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.specs import TrainSpec

CONF = Path(__file__).parents[3] / "conf"
OUT = Path(__file__).with_name("factors.npz")
COLUMNS = 16


def stored(part: str) -> dict:
    """Read a file of conf/."""
    return yaml.safe_load((CONF / f"{part}.yaml").read_text())


def factors(model: str, dataset: str, steps: int) -> list[Factor]:
    """Train `steps` steps of 128 samples."""
    return capture_factors(
        load(ModelSpec, stored(f"model/{model}")),
        DATASETS.load(stored(f"dataset/{dataset}")),
        OPTIMIZERS.load(stored("optimizer/kfac")),
        TrainSpec(epochs=6, batch_size=128, micro_batch_size=16),
        steps,
        seed=0,
    )


def entries(name: str, factor: Factor, start: int, stop: int) -> dict[str, np.ndarray]:
    """Return what is stored of rows and columns start:stop."""
    block = factor.matrix[start:stop, start:stop]
    return {
        name: block[np.triu_indices(len(block))].astype(np.float32),
        f"{name}/gradient": factor.gradient[start:stop, :COLUMNS].astype(np.float32),
        f"{name}/damping": np.array(factor.damping(Kfac(damping=0.03))),
    }


def main() -> None:
    """Write the file."""
    out: dict[str, np.ndarray] = {}
    for factor in factors("digits_cnn", "digits", 60):
        out |= entries(f"digits_cnn/{factor.layer}/{factor.kind}", factor, 0, len(factor.matrix))
    for model, start in (("fashion_mlp", 264), ("fashion_cnn", 256)):
        for factor in factors(model, "fashion_small", 40):
            if (factor.layer, factor.kind) == ("dense1", "A"):
                name = f"{model}/dense1/A/{start}"
                out |= entries(name, factor, start, start + 256)
    np.savez_compressed(OUT, **out)


if __name__ == "__main__":
    main()
