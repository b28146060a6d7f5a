"""Wrong settings end in one clear line that names the path and what is valid."""

import dataclasses
import functools
import shutil

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import repast_dist.settings as composed
from repast_dist.cli import main
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.presets import conf_dir, setting_groups
from repast_dist.ground.spec import load, to_dict
from repast_dist.settings import expand_sweep, load_settings, refuse_unread
from repast_dist.studies.settings import RunSettings, changed


def test_the_defaults_load():
    settings = load_settings()
    assert settings.study.name == "train"
    assert settings.farm.chips == 4


@pytest.mark.parametrize(
    ("override", "path", "valid"),
    [
        ("farm.chips=0", "farm.chips", "greater than or equal to 1"),
        ("inversion.method=foo", "inversion.method", "refine"),
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


def test_a_list_of_which_one_item_is_wrong_is_not_called_too_short():
    with pytest.raises(SettingsError) as error:
        load_settings(["study=scaling", "study.chips=[0]"])
    assert str(error.value) == "study.chips.0: input should be greater than or equal to 1, got 0"
    with pytest.raises(SettingsError, match="at least 1 item"):
        load_settings(["study=scaling", "study.chips=[]"])


@pytest.mark.slow
def test_every_option_of_every_group_loads():
    """One option of every group at a time; groups have different numbers of options."""
    groups = setting_groups()
    left = {group: list(options) for group, options in groups.items()}
    tried = {group: set() for group in groups}
    while any(left.values()):
        chosen = {group: options.pop() for group, options in left.items() if options}
        if chosen.get("search", "none") != "none" and "study" in chosen:
            # It chooses the study.
            left["study"].append(chosen.pop("study"))
        path = ["workload.path=x.onnx"] if chosen.get("workload") == "onnx" else []
        if chosen.get("device") == "table":
            path.append("device.cell.table=cmo_hfox.csv")
        if chosen.get("model") == "onnx":
            path.append("model.path=x.onnx")
        load_settings([*(f"{group}={option}" for group, option in chosen.items()), *path])
        for group, option in chosen.items():
            tried[group].add(option)
    assert tried == {group: set(options) for group, options in groups.items()}


AS_HYDRA_DOES = [
    ["farm.chips=7", "farm.chips=9", "seed=1e3", "run_root='a b'", "run_root=\\ x"],
    ["model=digits_mlp", "farm.chip_overrides={1:{speed:0.5}}", "inversion=refine"],
    ["farm.chip_overrides={1:{speed:0.5}}", "farm.chip_overrides.2.speed=3", "model.name=${seed}"],
    ["model.layers=[]", "farm.chips=null", "chip.adc=null", "chip.adc.bits=4"],
    ["chip.adc.bits=4", "chip.adc={bits: 6}", "new={a: 1}", "new.deep=2"], ["chip={tiles: 3}"],
    ["new.deep.er=[1,{a:b}]"], ["+other=2", "++chip.tiles=9", "~farm.chips"],
    ["model=none_such"], ["model.layers.x=3"], ["model.layers.0=3"], ["seed.x=1"], ["seed=[a,b"],
    ["farm.chips=1,2"], ["farm.chips=range(3)"], ["hydra.run.dir=x"], ["model@x=digits_mlp"],
    ["study=sweep", "study.axes={farm.chips: [1, 2]}"], ["optimizer=sgd", "optimizer.x=${nothing}"],
    ["experiment=honest", "device.cell.bits=3"], ["dataset=${model}"], ["seed="], ["seed=???"],
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("overrides", AS_HYDRA_DOES, ids=" ".join)
def test_values_are_set_on_groups_composed_before_as_hydra_sets_them(overrides):
    def by_hydra() -> object:
        adding = [composed.as_hydra_takes_it(item) for item in overrides]
        return OmegaConf.to_container(composed._compose(adding, None, "config"), resolve=True)

    composed.compose_plain(["model=digits_mlp"])
    try:
        expected = by_hydra()
    except (HydraException, OmegaConfBaseException, ValueError):
        with pytest.raises(SettingsError):
            composed.compose_plain(overrides)
    else:
        assert composed.compose_plain(overrides) == expected
        composed.compose_plain([*overrides, "seed=77", "farm.chips=77"])
        assert composed.compose_plain(overrides) == expected


def test_a_file_that_changes_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(composed, "conf_dir", lambda: tmp_path / "conf")
    monkeypatch.setattr("repast_dist.ground.presets.conf_dir", lambda: tmp_path / "conf")
    shutil.copytree(conf_dir(), tmp_path / "conf")
    assert composed.compose_plain(["farm.chips=2"])["seed"] == 0
    file = tmp_path / "conf" / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 41"))
    assert composed.compose_plain(["farm.chips=2"])["seed"] == 41


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["study=plan", "workload=onnx"], "workload.path"),
        (["study=plan", "device=table"], "device.cell.table"),
        (["-m", "study=plan", "chip=repast", "workload=resnet50,onnx"], "workload.path"),
    ],
)
def test_what_an_option_leaves_to_be_set_is_asked_for_before_anything_runs(
    words, path, tmp_path, capsys
):
    assert main([*words, f"run_root={tmp_path}"]) == 2
    expected = f"repast-dist: error: {path}: has no value; valid: {path}=..."
    assert capsys.readouterr().err.splitlines() == [expected]
    assert not list(tmp_path.iterdir())


def test_settings_survive_the_way_through_plain_data():
    settings = load_settings(["farm.chips=3", "inversion=refine"])
    assert load(RunSettings, to_dict(settings)) == settings


@pytest.mark.parametrize(
    "changes",
    [
        {"chip.tiles": 7, "farm.chips": 2},
        {"seed": 3},
        {"device.cell.levels": 16, "chip.adc": {"bits": 6}},
        {"chip.tiles": 0, "soi.interval": 0, "chip.tilse": 1},
        {"chip.vmm": 3},
        {"farm.chips": 2, "train.batch_size": 100},
        {"study.name": "nonsense"},
        {"objective": "step_s", "nope": 1},
        {"partition.idle_chips": "auto", "farm.chip_overrides": {"1": {"speed": 0.5}}},
    ],
    ids=str,
)
def test_settings_that_change_in_some_groups_are_those_that_are_loaded_anew(changes):
    settings = load_settings()
    data = to_dict(settings)
    for path, value in changes.items():
        *groups, name = path.split(".")
        functools.reduce(dict.__getitem__, groups, data)[name] = value

    def found(load_settings):
        try:
            return load_settings()
        except SettingsError as error:
            return str(error)

    assert found(lambda: changed(settings, changes)) == found(lambda: load(RunSettings, data))


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


@pytest.mark.parametrize(
    ("overrides", "path", "valid"),
    [
        (["workload=onnx", "workload.path=x.onnx"], "workload", "valid: model="),
        (["farm.study_workers=2"], "farm.study_workers", "chips_per_worker"),
        (["baseline.name=mine"], "baseline.name", "study=headline"),
        (["hydra.run.dir=x"], "hydra.run.dir", "run_root"),
        (["study=headline", "workload=resnet50"], "workload", "study.networks"),
        (["study=scaling", "farm.chips=8"], "farm.chips", "study.chips"),
        (["study=scaling_all", "workload=vgg16"], "workload", "study.networks"),
        (["study=plan", "workload=vgg16", "model=digits_mlp"], "model", "workload=model"),
        (["study=plan", "train.epochs=2"], "train.epochs", "train.batch_size"),
        (["study=explain", "device.cell.bits=3"], "device.cell.bits", "study=blocks|convergence"),
        (["study=convergence", "workload=vgg16"], "workload", "model"),
        (["study=convergence", "inversion.on_divergence=damp"], "inversion.on_divergence", "train"),
        (["inversion.damp_tries=2"], "inversion.damp_tries", "valid: inversion.on_divergence=damp"),
        (
            ["inversion=single", "inversion.product_bits=40", "soi.block_size=32"],
            "inversion.product_bits",
            "soi.block_size above chip.inv.size",
        ),
        (["study=verify", "seed=3"], "seed", "study=blocks|convergence"),
        (["study=headline", "experiment=fashion_classifier"], "experiment", "study"),
    ],
)
def test_a_setting_that_the_study_does_not_read_is_refused(overrides, path, valid):
    with pytest.raises(SettingsError) as caught:
        refuse_unread(load_settings(overrides), overrides)
    line = str(caught.value).splitlines()[0]
    assert line.startswith(f"{path}: ")
    assert valid in line


@pytest.mark.parametrize(
    "overrides",
    [
        ["farm=inprocess", "farm.chips=2", "seed=3", "run_root=x", "experiment=fashion_classifier"],
        ["study=plan", "model=digits_mlp", "optimizer=sgd", "chip.adc.bits=6"],
        ["study=plan", "workload=vgg16", "partition=capacity"],
        ["study=scaling", "workload=resnet50", "study.chips=[1,2]", "farm.study_workers=2"],
        [
            "study=convergence",
            "model@study.tasks.autoencoder.model=digits_autoencoder",
            "dataset=digits",
        ],
        ["study=verify", "study.run=x"],
    ],
)
def test_what_the_study_reads_is_accepted(overrides):
    refuse_unread(load_settings(overrides), overrides)


def test_a_setting_that_is_not_read_ends_the_command_with_the_status_of_wrong_settings(capsys):
    assert main(["study=explain", "farm.chips=8"]) == 2
    assert "farm.chips: not read by study=explain" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["-m", "model=digits_mlp", "seed=1,2"],
                                   ["model=digits_mlp", "-m", "seed=1,2"],
                                   ["model=digits_mlp", "seed=1,2", "-m"]])  # fmt: skip
def test_options_may_stand_between_settings(words, capsys):
    assert main([*words, "--cfg"]) == 0
    assert capsys.readouterr().out.count("\n---\n") == 1


def test_several_values_without_a_sweep_are_explained():
    with pytest.raises(SettingsError, match=r"several values; valid: -m farm\.chips=1,2 for a run"):
        load_settings(["farm.chips=1,2"])
