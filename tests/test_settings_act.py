"""Every setting acts: a change of it changes a result or a cost, or is refused with the reason.

Settings are found by walking the settings of presets that between them choose every kind of part;
each is changed automatically, and cheap probes (a plan, a chip's parts, two steps of training, a
machine beside it) are asked again. What no probe can reach is listed here with the test that
watches it act. A setting that no code reads fails this test.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import re
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union
from unittest import mock

import numpy as np
import pytest
from annotated_types import Gt
from omegaconf import OmegaConf
from PIL import Image
from rich.console import Console

from repast_dist.analog.cells.measured import SCORES
from repast_dist.analog.schemes.single import Single
from repast_dist.ground.errors import RepastError
from repast_dist.ground.presets import conf_dir
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec, to_dict
from repast_dist.hardware.components import Quantity
from repast_dist.network.layer import LAYERS
from repast_dist.ops import Segment
from repast_dist.planning.gpu import GpuKfac, GpuSpec, gpu_step
from repast_dist.planning.plan import Plan, make_plan
from repast_dist.planning.summary import summarise
from repast_dist.settings import compose_plain, load_settings
from repast_dist.studies import run_study
from repast_dist.studies.convergence.training import convergence_point
from repast_dist.studies.costing import chosen_workload, planned_step
from repast_dist.studies.explain import explain
from repast_dist.studies.headline.footings import chips_on_die
from repast_dist.studies.settings import RunSettings, changed, checked_settings, training_job
from repast_dist.studies.study import STUDIES
from repast_dist.trace.schema import PHASES
from repast_dist.training.datasets.image_folder import ImageFolder
from repast_dist.training.datasets.letters import Letters

TINY = (
    "farm=inprocess", "farm.chips=2", "model=digits_mlp", "dataset.train_samples=64",
    "dataset.test_fraction=0.03", "train.epochs=1", "train.batch_size=32",
    "train.micro_batch_size=16", "workload=model", "soi.block_size=40", "soi.interval=1",
    "model.layers=[{kind: flatten}, {kind: dense, name: hidden, outputs: 12}, {kind: relu}, "
    "{kind: dense, name: readout, outputs: 10}]",
)  # fmt: skip
"""Two steps on two chips."""

BASES: dict[str, tuple[str, ...]] = {
    "default": (),
    # Momentum is noticed in the third step.
    "three steps": ("optimizer=kfac", "dataset.train_samples=96"),
    "sgd": ("optimizer=sgd", "dataset.train_samples=96"),
    "adam": ("optimizer=adam", "dataset.train_samples=96"),
    "foof": ("optimizer=foof", "dataset.train_samples=96"),
    "muon": ("optimizer=muon", "dataset.train_samples=96"),
    "newton_muon": ("optimizer=newton_muon", "dataset.train_samples=96"),
    "shampoo": ("optimizer=shampoo", "optimizer.epsilon=0.001", "dataset.train_samples=96"),
    "shampoo by inversions": ("optimizer=shampoo", "optimizer.roots=inversions",
                              "dataset.train_samples=96"),
    "grafted shampoo": ("optimizer=shampoo", "optimizer.grafting=adam",
                        "optimizer.grafting_epsilon=0.01", "dataset.train_samples=96"),
    "unbiased averages": ("optimizer=foof", "optimizer.averaging=unbiased",
                          "dataset.train_samples=96"),
    "fixed": ("engine=fixed",),
    "fixed inverse": ("engine.inverse=fixed",),
    "plain damping": ("optimizer.damping_form=plain", "optimizer.warmup_steps=1"),
    "wires": ("device.wire.row_ohm=5.0", "device.wire.column_ohm=5.0"),
    "single": ("inversion=single",),
    "refine": ("inversion=refine",),
    "taylor": ("inversion=taylor",),
    "cg": ("inversion=cg",),
    "auto": ("inversion=auto",),
    "cholesky": ("inversion=cholesky",),
    "explicit": ("inversion=explicit", "inversion.inverse_from=0.1", "soi.block_size=80",
                 "chip.inv.size=32"),
    "auto beside amplifiers of much power": ("inversion=auto",
                                             "components.amplifier.supply_v.value=200.0"),
    "slew rate that takes much current": ("components.amplifier.slew_per_current.value=0.0001",
                                          "device.opamp.swing_v=0.5",
                                          "device.opamp.slew_v_per_s=1000000.0"),
    "blocks wider than an array": ("inversion.target_bits=8", "soi.block_size=80",
                                   "chip.inv.size=32"),
    "hard solves": ("inversion.max_iterations=1", "inversion.target_bits=30"),
    "ill-conditioned solves": ("inversion.target_bits=20", "optimizer.damping=0.00001"),
    "few right-hand sides": ("soi.right_sides_at_once=4",),
    "rare inverses": ("soi.interval=4", "soi.factor_interval=1"),
    "drift": ("device.cell.drift_exponent=0.1", "device.inv_cell.drift_exponent=0.1",
              "device.age_s=100.0"),
    "failing cells": ("device.cell.endurance_sigma=1.0", "device.inv_cell.endurance_sigma=1.0",
                      "device.cell.stuck_on_rate=0.002", "device.inv_cell.stuck_on_rate=0.002",
                      "device.cell.write_verify=true", "device.inv_cell.write_verify=true",
                      "device.previous_writes=1e8"),
    "flicker": ("device.cell.flicker_sigma=0.01", "device.inv_cell.flicker_sigma=0.01"),
    "warm": ("device.temperature_k=350.0", "device.cell.temperature_on_per_k=-0.001",
             "device.inv_cell.temperature_on_per_k=-0.001"),
    "isaac": ("chip=isaac", "optimizer=sgd"),
    "calibrated inputs": ("chip.dac.range=calibrated", "chip.dac.percentile=90"),
    "calibrated outputs": ("chip.adc.percentile=90",),
    "converters that differ": ("chip.adc.inl_lsb=1.0", "chip.adc.gain_error=0.05"),
    "converters that null themselves": ("chip.adc.offset_lsb=1.0", "chip.adc.nulling_passes=2",
                                        "chip.adc.nulled_offset_lsb=0.5"),
    "DACs that differ": ("chip.dac.bits=2", "chip.dac.offset_lsb=0.3", "chip.dac.inl_lsb=0.3",
                         "chip.dac.gain_error=0.05", "chip.dac.noise_lsb=0.1"),
    "inverting converters that differ": ("chip.inv.adc.noise_lsb=1.0", "chip.inv.dac.inl_lsb=1.0",
                                         "inversion=single"),
    "damping that is adapted": ("optimizer.adapt_damping_every=1",),
    "two bits a pass": ("chip.dac.bits=2",),
    "coarse residual products": ("chip.residual.adc.range=calibrated",
                                 "chip.residual.adc.percentile=90", "inversion.target_bits=4"),
    "residual products whose converters null themselves": (
        "chip.residual.adc.range=calibrated", "chip.residual.adc.offset_lsb=1.0",
        "chip.residual.adc.nulling_passes=2", "chip.residual.adc.nulled_offset_lsb=0.5",
        "inversion.target_bits=4",
    ),
    "residual products behind wires": ("chip.residual.wired=true", "device.wire.row_ohm=5.0",
                                       "inversion.target_bits=4"),
    "repast": ("chip=repast",),
    "one bank": ("chip.tiles=1", "chip.banks_per_tile=1", "chip.inv.arrays_per_bank=1"),
    "large network": ("workload=vgg13", "chip=repast"),
    "resnet": ("workload=resnet18", "chip=repast", "farm.chips=4"),
    "pipeline": ("workload=vgg13", "partition=pipeline", "farm.chips=8"),
    "idle chips": ("workload=lenet5", "farm.chips=64"),
    "sharing": ("workload=vgg13", "partition=shared", "farm.chips=8"),
    "transformer": ("workload=bert_base", "chip=repast"),
    "many samples": ("train.micro_batch_size=32",),
    "tree": ("interconnect=switch",),
    "torus": ("interconnect=torus", "farm.chips=16"),
    "hierarchy": ("interconnect=hierarchical", "farm.chips=8"),
    "gpu beside": ("baseline=gpu_a100",),
    "pipelayer beside": ("baseline=pipelayer",),
    "fused": ("soi.fusion='on'", "inversion=single", "optimizer.factor_decay=0.5",
              "train.micro_batch_size=8", "train.batch_size=16", "soi.fused_left_out=0.3"),
    "swing": ("device.opamp.swing_v=0.5", "device.opamp.slew_v_per_s=1000000.0",
              "inversion=single"),
    "curved cells": ("device.curve.v0_volts=0.25", "device.opamp.swing_v=0.5", "chip.dac.bits=2",
                     "inversion=single"),
    "fused slowly": ("device.opamp.compensation=50.0", "soi.fusion='on'", "inversion=single",
                     "optimizer.factor_decay=0.0", "train.micro_batch_size=8",
                     "train.batch_size=8"),
    "mnist": ("dataset=mnist",),
    "fashion_mnist": ("dataset=fashion_mnist",),
    "fashion_small": ("dataset=fashion_small",),
    "cifar10": ("dataset=cifar10",),
    "letters": ("dataset=letters", "dataset.train_samples=26", "dataset.test_samples=26"),
    "idx": ("dataset=idx",),
    "npz": ("dataset=npz",),
    "image_folder": ("dataset=image_folder",),
    "own samples": ("dataset=factory", "dataset.factory=own_samples:make"),
    "own module": ("model=factory",),
    "own file": ("model=onnx", "model.path=net.onnx"),
    "text": ("dataset=text",),
    "tokens": (
        "model=text_gpt", "model.input_shape=[1,1,8]", "dataset=text", "dataset.tokens=8",
        "model.layers=[{kind: embedding, entries: 73, width: 4}, {kind: dense, outputs: 73}]",
        "dataset.train_samples=96", "dataset.test_samples=12", "engine=float64",
    ),
    "autoencoder": ("model=digits_autoencoder", "engine=float64"),
    "convolutions": ("model=digits_cnn", "engine=float64"),
    "attention": ("model=digits_transformer", "engine=float64"),
    "residual": ("model=digits_resnet", "engine=float64"),
    "averaged": ("model.layers=[{kind: avg_pool}, {kind: flatten}, {kind: dense, outputs: 10}]",),
    "two epochs": ("train.epochs=2",),
    "wan2022": ("device=wan2022",),
    "ideal": ("device=ideal",),
    "measured": ("device=cmo_hfox", "device.age_s=1e4"),
    "wan2022 wires": ("device=wan2022", "device.wire.row_ohm=5.0", "device.wire.column_ohm=5.0"),
    "ideal wires": ("device=ideal", "device.wire.row_ohm=5.0", "device.wire.column_ohm=5.0"),
}  # fmt: skip
BASES |= {
    f"{method} in two slices": (f"inversion={method}", "inversion.array_slices=2")
    for method in ("single", "refine", "taylor", "fcg", "auto", "explicit")
}  # fmt: skip
BASES |= {
    f"retried {method}": (
        f"inversion={method}", "inversion.on_divergence=damp", "inversion.max_iterations=2",
        "inversion.target_bits=24",
    )
    for method in ("refine", "taylor", "cg", "fcg", "auto", "explicit")
}  # fmt: skip
BASES["retried cholesky"] = (
    "inversion=cholesky",
    "inversion.on_divergence=damp",
    "inversion.target_bits=30",
)
BASES["rescued cholesky"] = (
    "inversion=cholesky", "inversion.on_divergence=damp", "inversion.target_bits=16",
    "optimizer.damping=0.00000001",
)  # fmt: skip
BASES["retried single"] = (
    "inversion=single", "inversion.on_divergence=damp", "device.inv_cell.programming_sigma=0.5",
    "optimizer.damping=0.0001",
)  # fmt: skip
BASES |= {
    f"rescued {method}": (
        f"inversion={method}", "inversion.on_divergence=damp", "inversion.damp_factor=10",
        "inversion.damp_tries=6", "optimizer.damping=0.001",
        "device.inv_cell.programming_sigma=0.05", *rounds,
    )
    for method, *rounds in (
        ("single", "inversion.target_bits=8"),
        ("refine", "inversion.target_bits=4", "inversion.max_iterations=8"),
        ("taylor", "inversion.target_bits=8", "inversion.max_iterations=3"),
        ("cg", "inversion.target_bits=8", "inversion.max_iterations=3"),
        ("fcg", "inversion.target_bits=8", "inversion.max_iterations=3"),
        ("auto", "inversion.target_bits=8", "inversion.max_iterations=3"),
        ("explicit", "inversion.target_bits=8", "inversion.max_iterations=3"),
    )
}  # fmt: skip
"""Settings beside which others act; each is tried after the ones above it."""

SHOWN = {"name", "source", "confidence"}
"""What is shown beside the numbers."""

ELSEWHERE = {
    **{
        f"farm.{name}": "tests/farm/test_farm_settings_act.py"
        for name in (
            "backend", "chips_per_worker", "study_workers", "address", "nodes", "cpus_per_worker",
            "resources_per_worker", "placement", "blas_threads", "kernels", "object_store_bytes",
            "dashboard", "checkpoint_every", "checkpoint_keep", "max_worker_failures",
            "max_recoveries", "call_timeout_s", "node_timeout_s", "link_timeout_s",
            "start_timeout_s",
        )
    },
    "run_root": "tests/farm/test_farm_settings_act.py",
    "storage.uri": "tests/studies/test_studies_stored.py",
    "storage.go_on": "tests/studies/test_studies_stored.py",
    "storage.lease_s": "tests/studies/test_studies_stored.py",
    "objective": "tests/test_hydra_app.py",
    "export": "tests/studies/test_studies_exports.py",
    "plugins": "tests/test_plugins.py",
    "dataset.folder of Letters": "tests/training/test_training_letters.py",
    "dataset.targets": "tests/training/test_training_own_data.py",
    "dataset.factory": "tests/training/test_training_own_code.py",
    "dataset.arguments": "tests/training/test_training_own_code.py",
    "dataset.augmentation": "tests/training/test_training_own_code.py",
    # Of PyTorch modules.
    "model.factory": "tests/pytorch/test_torch_farm.py",
    "model.arguments": "tests/pytorch/test_torch_farm.py",
    "model.loss of FactoryModel": "tests/pytorch/test_torch_farm.py",
    "model.loss of OnnxModel": "tests/pytorch/test_torch_farm.py",
    "model.path": "tests/pytorch/test_torch_onnx.py",
    "model.weights": "tests/pytorch/test_torch_onnx.py",
    "model.frozen": "tests/pytorch/test_torch_onnx.py",
    "model.classes": "tests/pytorch/test_torch_farm.py",
    "model.likelihood": "tests/pytorch/test_torch_farm.py",
    "model.device": "tests/pytorch/test_torch_farm.py",
    "workload.path": "tests/network/test_workload_onnx.py",
    # Of a chip that inverts nothing, without converters of their own.
    "chip.residual.adc": "tests/analog/test_analog_residual_products.py",
}  # fmt: skip
"""Settings that change no result and no cost, and the tests that watch them act."""

VALUES: dict[str, list[Any]] = {
    "workload.name": ["lenet5"],
    "workload.sequence": [16],
    "workload.batch_axis": [1],
    "train.target_accuracy": [0.01],
    "train.max_steps": [1],
    "dataset.train_samples": [48],
    "dataset.test_samples": [12],
    "farm.chip_overrides": [{"0": {"speed": 0.5}}],
    "inversion.array_regularisation": [0.5],
    "device.opamp.noise_v_per_rthz": [1e-6],
    "inversion.array_read_after": [3.0, "settled"],
    "inversion.target_bits": [4, 24],
    "device.cell.programming_profile": [(1.0, 3.0)],
    "device.inv_cell.programming_profile": [(1.0, 3.0)],
    "device.cell.measured.rows.[].deviates": [tuple(s**3 / 16 for s in SCORES)],
    "device.inv_cell.measured.rows.[].deviates": [tuple(s**3 / 16 for s in SCORES)],
    "model.loss": ["squared_error"],
    "optimizer.coefficients": [(3.0, -4.0, 2.0)],
    "inversion.deflation": [0, 1],
    "inversion.deflation_above": [1.0, 100.0],
    "inversion.inverse_from": [50.0],
    "soi.widths": [({"layer": "hidden", "factor": "A", "block_size": 16},)],
    "chip.adc.percentile": [60.0],
    "chip.dac.percentile": [60.0],
    "chip.residual.adc.percentile": [60.0],
}
"""Changed values where doubling, halving and the other choices do not do."""

Probe = Callable[[RunSettings], Any]


def cost(settings: RunSettings) -> Any:
    """Average step of the plan."""
    plan = planned_step(settings)
    return [vars(summarise(plan)), plan.block_owner, plan.micro_batch_owner]


def parts(settings: RunSettings) -> Any:
    """Area and power of the chip."""
    return explain(settings.hardware).tables["components"].to_pylist()


def training(settings: RunSettings) -> Any:
    """Curves, solves, time and energy of a short training."""
    return convergence_point(settings.dataset.load(), training_job(settings))


def samples(settings: RunSettings) -> Any:
    """The samples that a network is trained on; of files that are not there, random ones."""
    source, random = settings.dataset, np.random.default_rng(0)
    some = random.random((64, 1, 8, 8)), np.arange(64) % 10
    with contextlib.ExitStack() as stack:
        if isinstance(source, ImageFolder):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            _save_pictures(Path(folder))
            source = dataclasses.replace(source, folder=folder)
        elif isinstance(source, Letters):
            pass  # Drawn where there are no files.
        elif any(getattr(source, name, "") for name in ("folder", "path", "factory")):
            stack.enter_context(mock.patch.object(type(source), "read", return_value=(some, some)))
        data = source.load()
    arrays = (data.train_inputs, data.train_labels, data.test_inputs, data.test_labels)
    return [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]


def _save_pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(90):
        (folder / str(number % 3)).mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / str(number % 3) / f"{number}.png")


def files(settings: RunSettings) -> Any:
    """Where the samples are looked for: nothing is there, and the message says where."""
    source = settings.dataset
    return source.load() if hasattr(source, "folder") or hasattr(source, "path") else None


def network(settings: RunSettings) -> Any:
    """Layer shapes."""
    return chosen_workload(settings)


def beside(settings: RunSettings) -> Any:
    """The machine that the headline compares with."""
    if not isinstance(settings.baseline, GpuSpec):
        study = load_settings(["study=headline"]).study
        return study.answer(dataclasses.replace(settings, study=study), None, None)  # type: ignore[arg-type]
    workload = chosen_workload(load_settings(["workload=lenet5"]))
    chips = chips_on_die(settings.baseline, settings.hardware)
    return [
        chips,
        *(vars(gpu_step(settings.baseline, workload, 64, kfac)) for kfac in (GpuKfac(), None)),
    ]


def to_target(settings: RunSettings) -> Any:
    """Time to target of the headline's machines."""
    from repast_dist.studies.headline.machines import MachineStep

    return [
        MachineStep("m", "f", 1, second, 8, 1.0, 1.0, {}, {}).record("vgg13", settings.epochs)
        for second in (True, False)
    ]


PROBES: dict[str, tuple[Probe, ...]] = {
    "baseline": (beside,),
    "epochs": (to_target,),
    "workload": (network,),
    "chip": (cost, parts, training),
    "components": (parts, cost),
    "interconnect": (cost,),
    "soi": (cost, training),
    "partition": (cost, training),
    "model": (network, training),
    "device": (training, cost),
    "farm": (training,),
    "train": (training,),
    "dataset": (samples, files),
    "seed": (training,),
    "optimizer": (training,),
    "engine": (training,),
    "inversion": (training,),
}
"""What is asked again when a setting of a group has changed, the quickest first."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A setting: where it is, its type and its value in one base."""

    path: tuple[str | int, ...]
    owner: type
    hint: Any
    value: Any

    @property
    def dotted(self) -> str:
        return ".".join("[]" if isinstance(part, int) else part for part in self.path)

    @property
    def identity(self) -> tuple[str, str]:
        """The same field of another member of a kind is another setting."""
        if any(isinstance(part, int) for part in self.path):
            return f"{self.path[0]}.{self.owner.__qualname__}.{self.path[-1]}", ""
        return self.dotted, self.owner.__qualname__


def leaves(settings: Any, path: tuple[str | int, ...] = ()) -> Iterator[Leaf]:
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value, here = getattr(settings, field.name), (*path, field.name)
        if _is_list_of_settings(value):
            for number, item in enumerate(value):
                yield from leaves(item, (*here, number))
        elif _is_figure(value) or not dataclasses.is_dataclass(value):
            yield Leaf(here, type(settings), hints[field.name], value)
        else:
            yield from leaves(value, here)


def _is_list_of_settings(value: Any) -> bool:
    return isinstance(value, tuple) and any(dataclasses.is_dataclass(item) for item in value)


def _is_empty_list_of_layers(leaf: Leaf) -> bool:
    """The layers of other bases stand in such a list."""
    return leaf.value == () and leaf.path[0] == "model"


def _is_tag(leaf: Leaf) -> bool:
    """The name of a member: which one is used is what the bases differ in."""
    return typing.get_origin(leaf.hint) is Literal and len(typing.get_args(leaf.hint)) == 1


def _is_figure(value: Any) -> bool:
    """A number, or a curve, with its source is one setting."""
    return hasattr(value, "source") and (hasattr(value, "unit") or hasattr(value, "points"))


def with_value(settings: Any, path: tuple[str | int, ...], value: Any) -> Any:
    name, *rest = path
    if isinstance(name, int):
        new = with_value(settings[name], tuple(rest), value)
        return (*settings[:name], new, *settings[name + 1 :])
    if rest:
        value = with_value(getattr(settings, name), tuple(rest), value)
    return dataclasses.replace(settings, **{name: value})


def changed_values(leaf: Leaf) -> Iterator[Any]:
    if leaf.dotted in VALUES:
        yield from VALUES[leaf.dotted]
        return
    if leaf.value is None and Quantity in typing.get_args(leaf.hint):
        yield Quantity(value=1.0, unit="1", source="a figure", confidence="C")
        return
    choices = [item for item in _literals(leaf.hint) if item != leaf.value]
    if choices:
        yield from choices
    else:
        yield from _others(leaf.value)


def _literals(hint: Any) -> list[Any]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return list(inner)
    if origin in (Union, UnionType, typing.Annotated):
        return [value for item in inner for value in _literals(item)]
    return []


def _others(value: Any) -> Iterator[Any]:
    match value:
        case bool():
            yield not value
        case int():
            yield from (2 * value, value + 1, max(value // 2, 1))
        case str():
            yield f"{value}_elsewhere"
        case float():
            yield from (2 * value, value / 2) if value else (0.02, 0.5, 1e-3)
        case tuple() if value and isinstance(value[0], tuple):
            yield tuple((x, y / 2) for x, y in value)
        case tuple() if value and all(isinstance(item, int) for item in value):
            yield (*value[:-1], 2 * value[-1])
        case _ if hasattr(value, "per") and value.value is None:
            yield dataclasses.replace(value, per=3 * value.per)
        case _ if hasattr(value, "per"):
            yield dataclasses.replace(value, value=value.value / 2)
        case _ if hasattr(value, "points"):
            yield dataclasses.replace(value, points=tuple((x, y / 2) for x, y in value.points))
        case None:
            yield from (1, 2, 0.5)


RELATED: dict[str, set[str]] = {
    "device": {"inversion"},
    "soi": {"inversion", "optimizer", "workload"},
    "partition": {"workload", "chip"},
    "interconnect": set(),
    "chip": {"workload", "engine"},
    "components": {"chip"},
    "dataset": {"model"},
}
"""Groups whose bases matter for the settings of another group."""


def bases_of(group: str) -> list[str]:
    """Return the bases beside which the settings of a group are tried."""
    groups = [group, *sorted(RELATED.get(group, set()))]
    own = {
        name: overrides[0].partition("=")[0].partition(".")[0]
        for name, overrides in BASES.items()
        if overrides
    }
    found = [name for name, changed_group in own.items() if changed_group in groups]
    return ["default", *sorted(found, key=lambda name: groups.index(own[name]))]


@functools.cache
def base(name: str) -> RunSettings:
    """Return the tiny settings with the changes of a base."""
    tiny = [item for item in TINY if not _overridden(item, BASES[name])]
    return checked_settings(_composed([*tiny, *BASES[name]]))


@functools.cache
def _plain() -> dict[str, Any]:
    return compose_plain([])


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose overrides as Hydra does, in a hundredth of its time."""
    pairs = [item.split("=", 1) for item in overrides]
    groups = {name: _option(name, value) for name, value in pairs if "." not in name}
    values = OmegaConf.from_dotlist([f"{name}={value}" for name, value in pairs if "." in name])
    return _merged({**_plain(), **groups}, OmegaConf.to_container(values))


def _merged(below: Any, above: Any) -> Any:
    """Put values in the place of others, group by group."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {name: _merged(below.get(name), value) for name, value in above.items()}


@functools.cache
def _option(group: str, name: str) -> dict[str, Any]:
    own = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"))
    below = [_option(group, item) for item in own.pop("defaults", ()) if item != "_self_"]
    return OmegaConf.to_container(OmegaConf.merge(*below, own))  # type: ignore[return-value]


def _overridden(item: str, others: tuple[str, ...]) -> bool:
    key = item.partition("=")[0]
    return any(
        key == other.partition("=")[0] or key.startswith(f"{other.partition('=')[0]}.")
        for other in others
    )


def outcome(probe: Probe, settings: RunSettings) -> tuple[str, bool]:
    """Return what a probe finds, and whether that is a refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return repr(probe(settings)), False
        except RepastError as error:
            return str(error), True


@functools.cache
def outcome_of_base(probe: Probe, name: str) -> tuple[str, bool]:
    return outcome(probe, base(name))


def acts(leaf: Leaf, name: str) -> bool:
    """Return whether a changed value of a setting is noticed beside one base."""
    settings = base(name)
    for probe in PROBES[leaf.path[0]]:
        before, refused_before = outcome_of_base(probe, name)
        if refused_before and before.startswith(f"{leaf.path[0]}:"):
            return True  # The whole choice is refused, with the reason.
        fixed = True  # No other value is taken, and the message says why and what is valid.
        for value in changed_values(leaf):
            try:
                other = with_value(settings, leaf.path, value)
            except (ValueError, RepastError) as error:
                fixed = fixed and f"{leaf.path[-1]}=" in str(error) and "valid:" in str(error)
                continue
            fixed = False
            after, refused = outcome(probe, other)
            if after != before and (not refused or str(leaf.path[-1]) in after or refused_before):
                return True
        if fixed and list(changed_values(leaf)):
            return True
    return False


def group_leaves(group: str) -> dict[tuple[str, str], list[tuple[str, Leaf]]]:
    """Return the settings of a group, each with the bases that have it."""
    found: dict[tuple[str, str], list[tuple[str, Leaf]]] = {}
    for name in bases_of(group):
        settings = base(name)
        part = getattr(settings, group)
        whole = dataclasses.is_dataclass(part)
        hint = typing.get_type_hints(RunSettings, include_extras=True)[group]
        for leaf in leaves(part, (group,)) if whole else [Leaf((group,), RunSettings, hint, part)]:
            if _is_empty_list_of_layers(leaf) or _is_tag(leaf):
                continue
            found.setdefault(leaf.identity, []).append((name, leaf))
    return found


SHOWN_BY: dict[str, str] = {
    "chip.residual.adc.margin": "coarse residual products",
    "chip.residual.adc.noise_lsb": "converters that differ",
    "chip.residual.adc.percentile": "coarse residual products",
    "chip.adc.offset_lsb": "residual products whose converters null themselves",
    "device.cell.g_off_siemens": "flicker",
    "device.cell.g_on_siemens": "warm",
    "device.MeasuredPoint.mean_siemens": "row 9",
    "inversion.conjugate": "ill-conditioned solves",
    "optimizer.momentum": "three steps",
    "partition.idle_chips": "idle chips",
    "partition.micro_batches": "sharing",
    "partition.overlap_exchange": "sharing",
    "partition.replicate_layers": "large network",
}
"""Where settings are known to act that are named like nothing there; a guess, tried first."""


def likeliest_first(places: list[tuple[str, Leaf]]) -> list[tuple[str, Leaf]]:
    """Put bases first that change what a setting is named like: those switch on what it acts on."""

    def likeness(place: tuple[str, Leaf]) -> int:
        name, leaf = place
        row = next((f"row {part}" for part in leaf.path if isinstance(part, int)), "")
        if SHOWN_BY.get(leaf.identity[0]) in (name, row):
            return -100
        named = {word for part in leaf.path[-2:] for word in str(part).split("_")}
        changed = {word for item in BASES[name] for word in re.split(r"[._=]", item)}
        return -len(named & changed)

    return sorted(places, key=likeness)


def _registries(hint: Any) -> Iterator[Registry[Any]]:
    """Return the registries whose members settings of a type hold."""
    if (found := Registry.of(hint)) is not None:
        yield found
    for inner in typing.get_args(hint):
        yield from _registries(inner)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        for item in typing.get_type_hints(hint, include_extras=True).values():
            yield from _registries(item)


def _classes(settings: Any) -> Iterator[type]:
    """Return the class of settings and of all that is in them."""
    if isinstance(settings, tuple):
        for item in settings:
            yield from _classes(item)
    elif dataclasses.is_dataclass(settings):
        yield type(settings)
        for field in dataclasses.fields(settings):
            yield from _classes(getattr(settings, field.name))


def test_every_member_of_every_kind_is_in_some_base():
    kinds = {id(kind): kind for kind in _registries(RunSettings) if kind is not STUDIES}
    kinds |= {id(LAYERS): LAYERS}
    met = {found for name in BASES for found in _classes(base(name))}
    unmet = [
        f"{kind.kind} {name}"
        for kind in kinds.values()
        for name in kind.names()
        if kind.get(name) not in met and kind.get(name).__module__.startswith("repast_dist.")
    ]
    assert unmet == []
    assert {kind.kind for kind in kinds.values()} >= {"layer", "optimizer", "topology"}


GROUPS = [field.name for field in dataclasses.fields(RunSettings) if field.name != "study"]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_acts_or_is_refused(group):
    silent = [
        path
        for (path, owner), places in group_leaves(group).items()
        if (path.rpartition(".")[2] not in SHOWN or path == "workload.name")
        and not {path, f"{path} of {owner}"} & ELSEWHERE.keys()
        and not any(acts(leaf, name) for name, leaf in likeliest_first(places))
    ]
    assert silent == [], "no probe notices these settings"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    ["partition.overlap_exchange", "partition.layers"],
)
def test_what_a_plan_models_changes_training(path):
    group = path.partition(".")[0]
    (leaf,) = (item for item in leaves(getattr(base("default"), group), (group,))
               if item.dotted == path)  # fmt: skip
    others = [with_value(base("default"), leaf.path, value) for value in changed_values(leaf)]
    assert any(outcome(training, other) != outcome_of_base(training, "default") for other in others)


@pytest.mark.parametrize(("path", "file"), ELSEWHERE.items())
def test_a_setting_that_no_probe_reaches_is_changed_in_the_test_that_watches_it(path, file):
    name = path.partition(" ")[0].rpartition(".")[2]
    text = (Path(__file__).parents[1] / file).read_text()
    assert f"{name}=" in text or f'"{name}"' in text


QUIET = Console(file=io.StringIO())
SMALL_STUDY = (
    "chip=repast", "farm.backend=inprocess", "farm.study_workers=1", "workload=lenet5",
)  # fmt: skip
SMALL_FACTOR = (
    "study=export-spice", "study.matrix=factor", "study.size=4", "study.steps=1",
    "study.simulate=false", "dataset.train_samples=96", "train.batch_size=32",
    "workload=model", "model=digits_mlp",
)  # fmt: skip
_METHOD = {"inversion.method": "single"}
SMALL_PRECISION = (
    "study=precision", "model=digits_mlp", "dataset=digits", "dataset.train_samples=96",
    "train.batch_size=32", "study.variants={one: {inversion.method: fcg}}", "study.solve=[targets]",
    "study.grids={reading: {methods: []}, amplifiers: {methods: []}}", "soi.block_size=8",
    "study.grids.targets.axes={inversion.target_bits: [8], inversion.product_bits: [32]}",
    "study.steps=1", "study.columns=2", "study.max_iterations=3", "study.published.size=4",
    "study.published.variants={one: {inversion.method: fcg}}",
)  # fmt: skip
SMALL_CONVERGENCE = (
    "study=convergence_quick", "model=digits_mlp", "dataset=digits", "dataset.train_samples=96",
    "train.epochs=1", "train.batch_size=32", "train.micro_batch_size=16", "study.damping=[0.3]",
    "study.methods=[float64, single]", "study.noise_levels=[0.01]", "study.block_sizes=[24]",
    "study.noise=[0.01]", "study.tasks={digits: {}}",
)  # fmt: skip
SMALL_FRONTIER = (
    "study=frontier_quick", "dataset.train_samples=96", "train.epochs=1", "train.batch_size=32",
    "train.micro_batch_size=16", "~study.tasks.autoencoder", "~study.tasks.letters",
    "~study.tasks.residual_cnn", "~study.tasks.language_model", "~study.optimizers.muon",
    "~study.optimizers.foof", "~study.optimizers.adamw", "~study.optimizers.newton_muon",
    "study.published=[]",
)  # fmt: skip
SMALL_DEMONSTRATION = (
    "study=demonstration", "model=digits_mlp", "dataset=digits", "dataset.train_samples=96",
    "train.epochs=1", "train.batch_size=32", "train.micro_batch_size=16", "study.seeds=1",
    "study.tuning_seeds=1", "study.circuits={refined: {}, exact: {engine.inverse: float64}}",
    "study.target=0.3", "study.other_targets=[]",
)  # fmt: skip
_SAVING = {"rival": "sgd", "value": 0.26, "source": "a paper"}
_PUBLISHED = {
    "network": "lenet5", "batch": 8, "first_order": 2.0, "second_order": 1.0, "source": "x",
}  # fmt: skip
_SEARCH = {
    "sgd": {"settings": {"optimizer.method": "sgd"}, "search": {"optimizer.learning_rate": [0.1]}},
    "kfac": {"search": {"optimizer.learning_rate": [0.05]}},
}
_ANCHORS = ", ".join(
    f"{{kind: {kind}, subject: {subject}, value: 2.0, tolerance: 0.1, source: a paper}}"
    for kind, subject in (
        ("chip power", "isaac"), ("GPU throughput", "v100 lenet5"),
        ("GPU K-FAC over first order", "v100 lenet5, loop: asdl"),
        ("PipeLayer over GTX 1080", "speedup"),
    )
)  # fmt: skip
SMALL_VALIDATE = (
    "study=validate", f"study.anchors=[{_ANCHORS}]", "study.headline.networks=[lenet5]",
)  # fmt: skip
_ANCHOR = {"kind": "chip power", "subject": "isaac", "value": 2.0, "source": "a paper"}
_ON_GPU = {"kind": "GPU K-FAC over first order", "subject": "v100 lenet5"} | {
    "value": 2.0,
    "source": "a paper",
}
_TRAINED = {"kind": "GPU throughput", "subject": "v100 bert_base", "value": 2.0, "source": "a page"}
SMALL_HEADLINE = (
    "study=headline", "study.networks=[lenet5]", "study.sensitive=[]", "study.bridge={}",
)  # fmt: skip
SMALL_SEARCH = (
    "study=search", "study.measures={cost: {kind: cost}}", "study.points=4", "study.keep=2",
    "study.parameters={chip.tiles: {low: 4, high: 64}}", "study.sampler={kind: random}",
    "study.objectives={cost.step_s: lowest, cost.energy_per_sample_j: lowest}",
)  # fmt: skip
_CHART = {"kind": "line", "x": "farm.chips", "y": "step_s"}
_MATRIX = "a file that is not there.npy"

STUDY_CHANGES: dict[tuple[str, ...], dict[str, Any]] = {
    ("study=plan",): {},
    ("study=explain",): {},
    ("study=blocks", "model=digits_mlp", "study.steps=2", "study.widths=[16,32]"): {
        "widths": [8], "steps": 3,
    },
    ("study=device", "device=cmo_hfox", "study.cells=200", "study.targets=3"): {
        "cells": 400, "targets": 5,
    },
    ("study=scaling", "study.chips=[1,2]", "study.batch_size=64"): {
        "chips": [1, 4], "modes": ["weak"], "networks": ["vgg13"], "batch_size": 32,
        "micro_batch_size": 16, "reuse": ["nowhere"],
    },
    ("study=export-chakra", "study.chips=2", "study.batch_size=16"): {
        "chips": 4, "batch_size": 32, "micro_batch_size": 4, "steps": 2, "ticks_per_s": 1e9,
    },
    ("study=export-spice", "study.size=4", "study.simulate=false"): {
        "circuits": ["vmm"], "matrix": "factor", "size": 5, "condition": 10.0,
        "full_scale_v": 0.1, "transient": True,
    },
    SMALL_FACTOR: {"layer": "dense2", "factor": "G", "steps": 2},
    ("study=export-spice", "study.simulate=false", "study.matrix=file", f"study.path={_MATRIX}"): {
        "path": "another that is not there.npy",
    },
    (
        "study=sweep", "study.axes={farm.chips: [1, 2]}", "study.best=step_s",
        "study.columns=[step_s, samples_per_s]",
        "study.charts=[{kind: line, x: farm.chips, y: step_s}]",
    ): {
        "question": "Another", "measure": {"kind": "solve"}, "axes": {"farm.chips": [1, 4]},
        "variants": {"weak": {"chip.digital_lanes": 1}}, "columns": ["step_s"],
        "best": "samples_per_s", "goal": "highest", "charts": [], "reuse": ["nowhere"],
        **{f"charts.{name}": [{**_CHART, name: value}] for name, value in {
            "kind": "bars", "x": "samples_per_s", "y": "samples_per_s", "value": "samples_per_s",
            "series": "variant", "title": "Other", "log_x": True, "log_y": True,
        }.items()},
    },
    SMALL_SEARCH: {
        "question": "Another", "parameters": {"chip.tiles": [4, 8]}, "points": 3, "keep": 1,
        "measures": {"cost": {"kind": "cost"}, "more": {"kind": "cost"}},
        "objectives": {"cost.area_m2": "lowest"}, "sampler": {"kind": "tpe", "first": 1},
        "constraints": {"cost.area_m2": {"at_most": 1e-4}}, "finals": {"also": {"kind": "cost"}},
        "pruning": {"column": "cost.step_s"},
    },
    SMALL_PRECISION: {
        "variants": {"other": _METHOD}, "solve": ["reading"], "prices": [],
        "grids.targets.axes": {"inversion.target_bits": [4]}, "steps": 2, "columns": 1,
        "grids.targets.settings": {"device.inv_cell.bits": 3}, "max_iterations": 1,
        "grids.targets.methods": ["fcg"], "gpu.name": "Another GPU",
        "gpu.source": "another paper", "gpu.times_s": {"LU inverse": [[250, 1.0]]},
        "reuse": ["nowhere"], "published.name": "Another", "published.source": "another paper",
        "published.size": 5, "published.cell_bits": 2, "published.target_bits": 20,
        "published.rounds": 11, "published.variants": {"other": _METHOD},
    },
    SMALL_CONVERGENCE: {
        "variants.fcg": {"engine.inverse": "analog", "inversion.method": "taylor"},
        "reference": "single", "methods": ["float64", "fcg"], "damping": [0.2], "noise": [0.02],
        "pi_methods": ["single"], "pi_damping": [0.2], "noise_levels": [0.0],
        "block_methods": ["float64"], "block_sizes": [8], "claimed_worse": ["fcg"],
        "tasks": {"other": {}}, "optimizers": _SEARCH, "chip_methods": ["single"],
        "chip_noise": 0.02, "seeds": 2, "reuse": ["nowhere"],
    },
    (*SMALL_CONVERGENCE, "study.seeds=2"): {"one_seed": ["float64"]},
    SMALL_FRONTIER: {
        "tasks": {"other": {"train.batch_size": 16}}, "optimizers.sgd.settings":
        {"optimizer.method": "foof"}, "optimizers.sgd.search": {"optimizer.learning_rate": [1.0]},
        "chips": {"one_settling": {"inversion.method": "single"},
                  "composed": {"chip.inv.arrays_per_bank": 0, "inversion.method": "cg"},
                  "digital": {"chip.inv.arrays_per_bank": 0, "inversion.method": "cholesky"}},
        "first_order_chip": "composed", "tuned_on": None, "points": 1,
        "tuning": {"engine.forward": "float64"}, "window": 1, "seeds": 2,
        "time_claimed": 0.001, "energy_claimed": 0.001, "tasks_claimed": 2,
        "saving_claimed": 1000.0, "saving_over": None, "tiles": [12], "reuse": ["nowhere"],
    },
    (
        *SMALL_FRONTIER, "~study.chips.composed", "study.saving_over=null",
        "study.published=[{network: lenet5, batch: 8, first_order: 2, second_order: 1, source: x}]",
        "study.published_settings={chip.tiles: 20}",
    ): {
        "published_settings": {"soi.block_size": 32},
        **{f"published.{name}": [{**_PUBLISHED, name: value}] for name, value in {
            "network": "model", "batch": 4, "first_order": 3.0, "second_order": 2.0,
            "settings": {"soi.block_size": 16}, "source": "y",
        }.items()},
    },
    SMALL_DEMONSTRATION: {
        "optimizers.sgd.settings": {"optimizer.method": "muon"},
        "optimizers.sgd.search": {"optimizer.learning_rate": [1.0, 2.0, 3.0, 4.0]},
        "circuits": {"refined": {"inversion.method": "single"}}, "optimizer": "adam",
        "circuit": "exact", "tuning": {"engine.inverse": "analog"}, "seeds": 2, "target": 0.35,
        "tuning_seeds": 2,
        "other_targets": [0.2], "reuse": ["nowhere"],
        **{f"published.{name}": [{**_SAVING, name: value}] for name, value in {
            "rival": "adam", "value": 0.3, "source": "another paper",
        }.items()},
    },
    SMALL_VALIDATE: {
        "isaac.tiles": 100, "gpus.v100.launch_s.value": 1e-3,
        "gpus.gtx1080.launch_s.value": 1e-3, "gpu": "a100", "headline.networks": ["vgg13"],
        "loops.asdl.host_s.value": 1e-3, "loops.asdl.loading_s.value": 1e-1,
        "headline.batch_size": 128, "headline.gpu_schedule.block_size": 64,
        "headline.micro_batch_size": 4, "headline.pipelayer.utilisation.value": 0.5,
        **{f"headline.paper.{name}.value": 5.0 for name in (
            "speedup_over_gpu", "speedup_over_pipelayer", "energy_saving_over_gpu",
            "energy_saving_over_pipelayer",
        )},
        "headline.paper.speedup_over_gpu.source": "another paper",
        **{f"anchors.{name}": [{**_ANCHOR, name: value}] for name, value in {
            "kind": "chip area", "subject": "another", "value": 60.0, "unit": "W",
            "tolerance": 0.5, "source": "another paper", "fitted": True,
        }.items()},
        **{f"anchors.{name}": [{**_ON_GPU, name: value}] for name, value in {
            "batch": 2, "interval": 7, "fisher_passes": 3, "loop": "asdl",
        }.items()},
        **{f"anchors.{name}": [{**_TRAINED, name: value}] for name, value in {
            "sequence": 64, "update_passes": 90.0,
        }.items()},
    },
    SMALL_HEADLINE: {
        "networks": ["vgg13"], "batch_size": 128, "micro_batch_size": 4, "sensitive": ["lenet5"],
        "gpu_schedule.block_size": 64, "gpu_schedule.interval": 20,
        "gpu_schedule.factor_interval": 20, "gpu_intervals": [3],
        "pipelayer.utilisation.value": 0.5, "pipelayer_chip.tiles": 10,
        "paper.speedup_over_gpu.value": 5.0,
        "bridge": {"fewer rounds": {"soi.assumed_iterations": 2}},
    },
    ("study=compare",): {"runs": ["nowhere"]},
    ("study=verify",): {"run": "nowhere"},
    ("study=report",): {"run": "nowhere"},
    ("study=export-perfetto",): {"run": "nowhere"},
}  # fmt: skip
"""Small studies, and a changed value of every setting that they have."""

STUDY_ELSEWHERE = {
    "runs.browser": "tests/studies/test_studies_runs.py opens it",
    "runs.most_curves": "tests/studies/test_studies_runs.py counts the curves",
    "report.standalone": "tests/report/test_report_page.py opens the pages",
    "export-spice.simulate": "tests/studies/test_studies_export_spice.py runs ngspice",
    "export-perfetto.rows": "tests/trace counts the rows",
}


def pretended_curve(data: Any, job: Any) -> dict[str, Any]:
    """Return curves that depend on all that decides a run, without training."""
    share = int(hashlib.sha256(json.dumps(to_dict(job)).encode()).hexdigest()[:8], 16) / 2**32
    losses = {"train_loss": 0.5 + share, "test_loss": 0.6 + share, "test_accuracy": 0.9 - share / 2}
    epoch = {"epoch": 1, "step": 3, **losses, "time_s": 1.0 + share, "energy_j": 2.0 + share}
    return {"epochs": [epoch], "first_loss": 2.5, "steps": 3, "diverged": None, "solves": {}}


PLANS: dict[str, Plan] = {}


def planned_once(*asked: Any) -> Plan:
    """Return the plan of what was asked before, which the studies ask for again and again."""
    key = repr(asked)
    if key not in PLANS:
        PLANS[key] = make_plan(*asked)
    return PLANS[key]


def pretended_steps(data: Any, job: Any) -> dict[str, Any]:
    """Return steps that depend on all that decides a run, without training."""
    share = int(hashlib.sha256(json.dumps(to_dict(job)).encode()).hexdigest()[:8], 16) / 2**32
    second = job.optimizer.second_order is not None
    return {
        "loss": [3.0, 1.0 + share, (0.1 if second else 0.5) + share / 10],
        "time_s": [1.0 + share] * 3, "cell_writes": [5] * 3,
        "phases_j": {phase: [1.0 + share] * 3 for phase in PHASES}, "accuracy": 0.5,
        "segments_s": {segment.title: [1.0 + share] * 3 for segment in Segment},
        "test_loss": 1.0, "diverged": None, "solves": {},
    }  # fmt: skip


def _answered(settings: RunSettings, folder: Path) -> dict[str, Any]:
    """Return what a study says and the files that it leaves, without its settings."""
    pages: list[Any] = []
    with (
        mock.patch("repast_dist.studies.output.write_study", lambda page, _: pages.append(page)),
        mock.patch("repast_dist.studies.convergence.answer.convergence_point", pretended_curve),
        mock.patch("repast_dist.studies.demonstration.answer.convergence_point", pretended_curve),
        mock.patch("repast_dist.planning.idle.make_plan", planned_once),
        mock.patch("repast_dist.studies.frontier.answer.frontier_point", pretended_steps),
        mock.patch("repast_dist.studies.validate._PIPELAYER_NETWORKS", ("vgg13",)),
        mock.patch("repast_dist.studies.headline.footings._MOST_CHIPS", 8),
        # What points take of the processor differs from time to time.
        mock.patch("repast_dist.studies.search.evaluate.processor_s", return_value=0.0),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            answer = run_study(dataclasses.replace(settings, run_root=str(folder)), QUIET)
        except RepastError as error:
            return {"refused": str(error)}
    pages = [dataclasses.replace(page, settings={}, versions={}) for page in pages]
    tables = [{name: t.to_pylist() for name, t in page.tables.items()} for page in pages]
    written = {
        str(file.relative_to(answer)): file.read_bytes()
        for file in sorted(answer.rglob("*"))
        if file.is_file() and file.name != "settings.json" and "points" not in file.parts
    }
    return {"pages": repr(pages), "tables": repr(tables), "written": written}


def base_of_study(overrides: tuple[str, ...]) -> RunSettings:
    """Return the settings of a small study."""
    small = [item for item in SMALL_STUDY if not _overridden(item, overrides)]
    return load_settings([*small, *overrides])


@pytest.mark.slow
@pytest.mark.parametrize("overrides", STUDY_CHANGES, ids=lambda item: item[0])
def test_every_setting_of_a_small_study_changes_its_answer(overrides, tmp_path):
    settings = base_of_study(overrides)
    before = _answered(settings, tmp_path / "before")
    for name, value in STUDY_CHANGES[overrides].items():
        field = name.partition(".")[0]
        in_list = isinstance(getattr(settings.study, field), tuple)
        other = changed(settings, {f"study.{field if in_list else name}": value})
        after = _answered(other, tmp_path / name)
        assert after != before, f"{settings.study.name}: {name}"


def test_every_setting_of_a_small_study_has_a_changed_value():
    tried = {
        f"{study}.{name.partition('.')[0]}"
        for overrides, changes in STUDY_CHANGES.items()
        for study in [overrides[0].removeprefix("study=").removesuffix("_quick")]
        for name in changes
    }
    missing = [
        f"{name}.{field.name}"
        for name in STUDIES.names()
        if STUDIES.get(name).__module__.startswith("repast_dist.")
        for field in dataclasses.fields(STUDIES.get(name))  # type: ignore[arg-type]
        if field.name != STUDIES.tag
    ]
    assert set(missing) - tried - set(STUDY_ELSEWHERE) == set()


@spec
class Deaf(Single):
    """A scheme with a setting that nothing reads."""

    method: Literal["deaf"] = "deaf"  # type: ignore[assignment]
    unheard: Annotated[float, Gt(0)] = 1.0


def test_a_setting_that_nothing_reads_is_found(monkeypatch):
    deaf = dataclasses.replace(base("single"), inversion=Deaf())
    monkeypatch.setitem(BASES, "deaf", ("inversion=single",))
    monkeypatch.setattr(f"{__name__}.base", lambda name: deaf)
    settings = {leaf.dotted: leaf for leaf in leaves(deaf.inversion, ("inversion",))}
    assert not acts(settings["inversion.unheard"], "deaf")
    assert acts(settings["inversion.array_copies"], "deaf")


def test_a_study_of_an_unknown_network_is_refused_with_the_networks_there_are():
    with pytest.raises(
        RepastError, match=r"study\.networks\.0: no network table 'alexnet'; valid: .*vgg13"
    ):
        load_settings(["study=scaling", "study.networks=[alexnet]"])
