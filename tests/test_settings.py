"""Wrong settings end in one clear line that names the path and what is valid."""

import dataclasses

import pytest

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import load, to_dict
from repast_dist.settings import expand_sweep, load_settings, setting_groups
from repast_dist.studies.settings import RunSettings


def test_the_defaults_load():
    settings = load_settings()
    assert settings.study.name == "train"
    assert settings.farm.chips == 4


@pytest.mark.parametrize(
    ("override", "path", "valid"),
    [
        ("farm.chips=0", "farm.chips", "greater than or equal to 1"),
        ("inversion.method=foo", "inversion.method", "'refine'"),
        ("chip.adc.bits=eight", "chip.adc.bits", "valid integer"),
        ("farm.chps=2", "farm.chps", "did you mean 'chips'?"),
        ("chip=nonsense", "chip", "small"),
        ("farms.chips=2", "farms", "farm"),
        ("chip.adc.bitz=3", "chip.adc.bitz", "did you mean 'bits'?"),
        ("train.batch_size=100", "train", "micro_batch_size"),
        ("farm.backend=rey", "farm.backend", "'ray' or 'inprocess'"),
        ("farm.chip_overrides={7:{speed:0.5}}", "farm", "valid: 0 to 3"),
        ("optimizer.damping=-1", "optimizer.damping", "greater than 0"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_valid(override, path, valid):
    with pytest.raises(SettingsError) as caught:
        load_settings([override])
    message = str(caught.value)
    assert message.startswith(path)
    assert valid in message
    assert "\n" not in message


def test_every_option_of_every_group_loads():
    for group, options in setting_groups().items():
        for option in options:
            path = ["workload.path=x.onnx"] if option == "onnx" else []
            load_settings([f"{group}={option}", *path])


def test_settings_survive_the_way_through_plain_data():
    settings = load_settings(["farm.chips=3", "inversion=refine"])
    assert load(RunSettings, to_dict(settings)) == settings


def test_settings_cannot_be_changed_after_loading():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings().farm.chips = 8


def test_a_sweep_is_the_product_of_its_axes():
    points = expand_sweep(["farm.chips=1,2", "seed=5", "inversion.method=taylor,fcg"])
    assert points == [
        [f"farm.chips={chips}", "seed=5", f"inversion.method={method}"]
        for chips in (1, 2)
        for method in ("taylor", "fcg")
    ]


def test_a_folder_of_the_users_own_adds_options(tmp_path):
    (tmp_path / "farm").mkdir()
    (tmp_path / "farm" / "mine.yaml").write_text("defaults: [default]\nchips: 3\n")
    assert load_settings(["farm=mine"], tmp_path).farm.chips == 3


def test_chips_of_a_scaling_study_are_those_of_the_farm():
    assert load_settings(["study=scaling", "farm.chips=1,2,4"]).study.chips == (1, 2, 4)
    assert load_settings(["study=scaling_all", "farm.chips=16"]).study.chips == (16,)


def test_several_values_without_a_sweep_are_explained():
    with pytest.raises(SettingsError, match=r"several values; valid: -m farm\.chips=1,2 for a run"):
        load_settings(["farm.chips=1,2"])
