"""Samples and augmentations that functions of a user's own make, and how their code is found."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import final_arrays

from repast_dist.ground import user_code
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.settings import load_settings
from repast_dist.training.datasets.factory import FactoryData

RUN = (
    "dataset.factory=own_samples:make", "model=digits_mlp", "train.max_steps=3",
    "train.batch_size=32", "farm.backend=inprocess", "engine=float64",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_taken(monkeypatch):
    monkeypatch.setattr(user_code, "_TAKEN", {})
    monkeypatch.setattr(user_code, "_OF_PLACE", {})


def loaded(name, **others):
    return FactoryData(factory=f"own_samples:{name}", **others).load()


@pytest.mark.parametrize("form", ["items", "mapping"])
def test_samples_may_come_in_several_forms(form):
    wanted, found = loaded("make"), loaded(form)
    for name in ("train_inputs", "train_labels", "test_inputs", "test_labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert wanted.classes == 10
    assert wanted.train_inputs.max() <= 1
    assert wanted.train_inputs.dtype == np.float32
    assert not np.array_equal(loaded("make", arguments={"seed": 1}).train_inputs,
                              wanted.train_inputs)  # fmt: skip


def test_samples_of_several_arrays_are_records():
    data, plain = loaded("several"), loaded("make")
    kinds = data.train_inputs.dtype
    assert [kinds[name].base for name in kinds.names] == [np.float32, np.float32, bool]
    np.testing.assert_array_equal(data.train_inputs["0"], plain.train_inputs)
    np.testing.assert_array_equal(data.train_labels, plain.train_labels)
    np.testing.assert_array_equal(loaded("several", arguments={"form": "items"}).train_inputs,
                                  data.train_inputs)  # fmt: skip
    both = loaded("several", arguments={"form": "two labels"})
    assert both.sample_text == "image (1, 8, 8)"
    assert (both.classes, both.train_labels.dtype.names) == (0, ("kind", "half"))


@pytest.mark.parametrize(
    ("form", "message"),
    [("too few", "0 has 128, 1 has 127 samples"), ("no name", r"named \['an image'\]")],
)
def test_samples_of_several_arrays_that_do_not_fit_are_named(form, message):
    with pytest.raises(DataError, match=message):
        loaded("several", arguments={"form": form})


def test_labels_that_are_real_numbers_are_fitted():
    data = loaded("numbers")
    assert (data.classes, data.train_labels.shape) == (0, (128, 1))
    assert loaded("make", scaling="standard").train_inputs.mean() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("negative", "training set: a label of -1; valid: whole numbers from 0"),
        ("not_finite", "inputs have NaN or infinity"),
    ],
)
def test_samples_that_are_not_valid_are_named(name, message):
    with pytest.raises((DataError, SettingsError), match=message), np.errstate(all="ignore"):
        loaded(name)


@pytest.mark.parametrize(
    "function", [pytest.param("mirror", marks=pytest.mark.slow), "mirror_by_global_streams"]
)
def test_augmentation_changes_a_run_and_no_number_of_chips_does(train, function):
    plain = train(*RUN, "farm.chips=1")
    augmented = [
        train(*RUN, f"dataset.augmentation=own_samples:{function}", f"farm.chips={chips}")
        for chips in (1, 3)
    ]
    first, second = (final_arrays(run) for run in augmented)
    assert first == second
    assert first != final_arrays(plain)
    result = json.loads((augmented[0] / "result.json").read_text())
    assert set(result["plugins"]) == {"own_samples"}


def test_an_augmentation_that_changes_the_shape_is_refused():
    with pytest.raises(SettingsError, match=r"made \(1, 7, 8\) of a sample of \(1, 8, 8\)"):
        loaded("make", augmentation="own_samples:crop")


def package(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_code_travels_with_what_it_imports_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "kit", "__init__.py", "")
    package(tmp_path / "kit", "parts.py", "from . import deep\nimport numpy\n\nmake = deep.make\n")
    package(tmp_path / "kit", "deep.py", "import helper_of_kit\n\ndef make():\n    return 7\n")
    package(tmp_path, "helper_of_kit.py", "import json\n")
    package(tmp_path, "other.py", "raise RuntimeError\n")
    assert user_code.resolve("kit.parts:make", "x")() == 7
    sources = user_code.taken()
    assert set(user_code.code_checksums(["kit.parts:other"])) == {item.name for item in sources}
    assert user_code.code_checksums(["elsewhere:make"]) == {}
    assert {item.name for item in sources} == {"kit", "kit.parts", "kit.deep", "helper_of_kit"}
    # Elsewhere there are no files, and the same texts run.
    for name in ("kit", "kit.parts", "kit.deep", "helper_of_kit"):
        sys.modules.pop(name)
    user_code._TAKEN.clear()
    user_code._OF_PLACE.clear()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match=r"x: no module 'kit\.parts'"):
        user_code.resolve("kit.parts:make", "x")
    user_code.take(sources)
    assert user_code.resolve("kit.parts:make", "x")() == 7


def test_what_is_installed_into_a_folder_of_the_search_path_does_not_travel(tmp_path, monkeypatch):
    work, libraries = tmp_path / "work", tmp_path / "libraries"
    package(work, "uses.py", "import own_tool, a_library, one_file\n\nmake = a_library.make\n")
    package(libraries, "own_tool.py", "")
    package(libraries, "one_file.py", "")
    package(libraries / "a_library", "__init__.py", "def make():\n    return 7\n")
    package(
        libraries / "a_library-1.0.dist-info",
        "RECORD",
        "a_library/__init__.py,sha256=x,30\none_file.py,,\na_library-1.0.dist-info/RECORD,,\n",
    )
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(libraries))
    assert user_code.resolve("uses:make", "x")() == 7
    assert {source.name for source in user_code.taken()} == {"uses", "own_tool"}
    assert user_code.resolve("a_library:make", "x")() == 7
    assert "a_library" not in {source.name for source in user_code.taken()}


def test_a_changed_text_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in (1, 2):
        package(tmp_path, "value_of.py", f"def make():\n    return {value}\n")
        assert user_code.resolve("value_of:make", "x")() == value
        assert user_code.resolve(f"{tmp_path}/value_of.py:make", "x")() == value


WRONG = {
    "made.py": r"x: 'made\.py'; valid: module:function",
    "none.py:make": r"x: none\.py is not a file",
    "syntax.py:make": r"x: .*syntax\.py, line 1: ",
    "raising.py:make": r"x: raising: ValueError: told so \(.*raising\.py, line 2\)",
    "without_torch.py:make": r"PyTorch is not installed; valid: pip install 'repast-dist\[torch\]'",
    "missing.py:make": r"x: missing: ModuleNotFoundError: No module named 'not_there_at_all'",
}


@pytest.mark.parametrize("reference", WRONG)
def test_code_that_is_wrong_is_named_with_its_line(tmp_path, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    package(tmp_path, "syntax.py", "def make(:\n")
    package(tmp_path, "raising.py", "import json\nraise ValueError('told so')\n")
    package(tmp_path, "without_torch.py", "import torch\n")
    package(tmp_path, "missing.py", "import not_there_at_all\n")
    with pytest.raises(SettingsError, match=WRONG[reference]):
        user_code.resolve(reference, "x")


def test_a_setting_of_one_member_chooses_it_and_starts_afresh():
    settings = load_settings(["dataset=idx", "dataset.factory=own_samples:make"])
    assert settings.dataset == FactoryData(factory="own_samples:make")
    preset = load_settings(["dataset=factory"]).dataset
    assert preset == FactoryData(factory="my_lab:make_data")
