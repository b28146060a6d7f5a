"""Settings from Python are those of the command line, with the same errors."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repast_dist as rd
from repast_dist import settings as command_line
from repast_dist.api.loading import as_overrides
from repast_dist.cli import main
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import to_dict
from repast_dist.hardware import Hardware

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.mark.parametrize(
    ("overrides", "groups", "words"),
    [
        (["farm.chips=8"], {"chip": "repast", "seed": 1}, "farm.chips=8 chip=repast seed=1"),
        ([{"farm.chips": np.int64(8)}], {}, "farm.chips=8"),
        ([], {"farm": {"chips": 3, "backend": "inprocess"}}, "farm.chips=3 farm.backend=inprocess"),
        ([{"optimizer.kl_clip": None}], {}, "optimizer.kl_clip=null"),
        ([{"chip.vmm.differential": False}], {}, "chip.vmm.differential=false"),
        ([{"optimizer.damping": 1e-05}], {}, "optimizer.damping=0.00001"),
        ([{"farm.chip_overrides": {2: {"speed": 0.5}}}], {}, "farm.chip_overrides={2:{speed:0.5}}"),
        ([{"study.chips": (1, 2)}], {"study": "scaling"}, "study.chips=[1,2] study=scaling"),
        ([], {"inversion": {"method": "taylor"}}, "inversion.method=taylor"),
    ],
)
def test_settings_equal_those_of_the_same_words(
    overrides: list[Any], groups: dict[str, Any], words: str
) -> None:
    expected = command_line.load_settings(words.split(" "))
    assert rd.load_settings(*overrides, **groups) == expected


@pytest.mark.parametrize(
    "text", ["", "a b", "it's", "C:\\new\\", "1e3", "true", "Null", "a,b", "[x]", "{y: z}", "x=y",
             "it\\'s", "ü", "/home/ü", "'", "\\'", "#", " end ", "a:b", "($)"]
)  # fmt: skip
def test_any_text_arrives_as_it_is(text: str) -> None:
    assert rd.load_settings(run_root=text).run_root == text


def test_settings_objects_are_values_too() -> None:
    small = rd.load_hardware("small")
    settings = rd.load_settings(chip=small.chip, device=small.device)
    assert to_dict(settings.chip) == to_dict(small.chip)


def test_a_folder_of_ones_own_adds_options(tmp_path: Path) -> None:
    (tmp_path / "farm").mkdir()
    (tmp_path / "farm" / "mine.yaml").write_text("defaults: [default]\nchips: 3\n")
    assert rd.load_settings(farm="mine", config_dir=tmp_path).farm.chips == 3


WRONG = [
    (lambda: rd.load_settings("farm.chps=2"), "farm.chps=2"),
    (lambda: rd.load_settings(chip="nonsense"), "chip=nonsense"),
    (lambda: rd.load_settings({"farm.chips": 0}), "farm.chips=0"),
    (lambda: rd.load_hardware("nonsense"), "chip=nonsense"),
    (lambda: rd.load_hardware(**{"chip.adc.bitz": 3}), "chip.adc.bitz=3"),
    (lambda: rd.solve(np.eye(2), np.eye(2), small(), "nonsense"), "inversion=nonsense"),
    (
        lambda: rd.solve(np.eye(2), np.eye(2), small(), {"target_bits": 99}),
        "inversion.target_bits=99",
    ),
    (lambda: rd.plan("nonsense"), "study=plan workload.name=nonsense"),
    (lambda: rd.plan("lenet5", chips=0), "study=plan farm.chips=0"),
    (
        lambda: rd.plan("lenet5", None, {"train.epochs": 2}),
        "study=plan workload=lenet5 train.epochs=2",
    ),
    (lambda: rd.train(farm="inproces"), "farm=inproces"),
    (lambda: rd.train({"workload.sequence": 3}), "workload.sequence=3"),
    (lambda: rd.study("nonsense"), "study=nonsense"),
    (lambda: rd.study("explain", {"farm.chips": 8}), "study=explain farm.chips=8"),
    (lambda: rd.sweep({"chip.adc.bits": [8, "x"]}), "-m chip.adc.bits=8,x"),
    (lambda: rd.sweep("farm.chips=4,0"), "-m farm.chips=4,0"),
]


@functools.cache
def small() -> Hardware:
    return rd.load_hardware("small")


@pytest.mark.parametrize(("call", "words"), WRONG, ids=lambda item: item if item else "call")
def test_a_wrong_setting_is_refused_in_the_words_of_the_command_line(
    call: Callable[[], Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert main(words.split(" ")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("repast-dist: error: ") for line in lines] == str(
        caught.value
    ).splitlines()
    assert not list(tmp_path.iterdir()), "nothing was run"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rd.load_hardware(seed=1), "seed: not a setting of the hardware; valid: chip"),
        (lambda: rd.plan("lenet5", small(), chip="small"), "chip: the hardware is given"),
        (
            lambda: rd.plan("lenet5", None, "train.batch_size=256", batch_size=128),
            r"train\.batch_size: batch_size=128 is given, too; valid: leave out",
        ),
        (lambda: rd.sweep({"farm.chips": []}), "farm.chips: an axis without values"),
        (lambda: rd.load_settings({"seed": object()}), "seed: object is no value of a setting"),
        (lambda: rd.load_settings(3), "3: no setting; valid: 'farm.chips=8'"),  # type: ignore[arg-type]
        (lambda: rd.solve(np.eye(2), np.eye(2), small(), damping=-1), "damping: -1; valid: 0 or"),
    ],
)
def test_what_only_python_can_get_wrong_is_named_too(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(SettingsError, match=r"^" + message):
        call()


def test_overrides_keep_their_order() -> None:
    assert as_overrides(["a=1", {"b": 2}, "a=3"], {"c": 4}) == ["a=1", "b=2", "a=3", "c=4"]
