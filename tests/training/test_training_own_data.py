"""Data of one's own: arrays, IDX files and folders of pictures, and what is refused of them."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import repast_dist as rd
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.training.datasets import image_folder
from repast_dist.training.datasets.idx_files import IdxFiles
from repast_dist.training.datasets.image_folder import ImageFolder
from repast_dist.training.datasets.npz import Npz


def saved(path: Path, **changed: Any) -> Npz:
    """Save 12 + 5 samples of 6 features in 3 classes, some arrays changed; None: left out."""
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.standard_normal((12, 6)),
        "y_train": np.arange(12) % 3,
        "x_test": random.standard_normal((5, 6)),
        "y_test": np.arange(5) % 3,
    } | changed
    np.savez(path / "data.npz", **{k: v for k, v in arrays.items() if v is not None})
    return Npz(path=str(path / "data.npz"), scaling="standard")


def test_arrays_of_any_layout_become_pictures_with_channels(tmp_path: Path) -> None:
    data = saved(tmp_path).load()
    assert data.train_inputs.shape == (12, 1, 1, 6)
    assert (data.classes, data.test_labels.tolist()) == (3, [0, 1, 2, 0, 1])
    grey = np.arange(12 * 4 * 5, dtype=np.uint8).reshape(12, 4, 5)
    source = saved(tmp_path, x_train=grey, x_test=grey[:5])
    inputs = Npz(path=source.path).load().train_inputs
    np.testing.assert_allclose(inputs[:, 0] * 255, grey, rtol=1e-6)
    colour = np.zeros((12, 3, 4, 5))
    colour[0] = 1.0
    source = saved(tmp_path, x_train=colour, x_test=colour[:5], y_train=np.arange(12)[:, None] % 3)
    assert Npz(path=source.path).load().train_inputs.shape == (12, 3, 4, 5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_test": None}, "lacks y_test; it must hold x_train, y_train, x_test, y_test"),
        ({"x_train": np.zeros((12, 1, 1, 1, 6))}, r"\(12, 1, 1, 1, 6\); valid: \(N, D\)"),
        ({"x_test": np.zeros((5, 7))}, r"\(1, 1, 6\), test samples \(1, 1, 7\)"),
        ({"y_train": np.arange(11)}, r"labels of shape \(11,\) for 12 inputs"),
        ({"y_train": np.arange(12) / 2}, "valid: whole numbers from 0"),
        ({"y_train": np.arange(12) - 1}, "a label of -1; valid: whole numbers from 0"),
        ({"y_test": np.array([0, 1, 2, 3, 0])}, "class 3; the training set has 3 classes"),
        ({"x_train": np.full((12, 6), np.nan)}, "NaN or infinity; valid: finite numbers"),
        ({"x_train": np.full((12, 6), 1e300)}, "NaN or infinity; valid: finite numbers"),
        ({"y_train": np.full(12, np.nan)}, "valid: whole numbers from 0"),
        ({"x_train": np.full((12, 6), "a")}, "valid: real numbers"),
        ({"y_train": np.array([{}] * 12)}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_what_would(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        saved(tmp_path, **changed).load()


def test_files_that_are_no_archive_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with pytest.raises(DataError, match=r"dataset\.path: .* is not a file"):
        Npz(path=str(path)).load()
    for content in (b"", b"PK\3\4 torn", np.zeros(3).tobytes()):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            Npz(path=str(path)).load()


def test_an_array_that_is_no_archive_or_has_no_room_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"is one array; valid: a file of numpy\.savez"):
        Npz(path=str(path)).load()
    said = {"descr": "<f4", "fortran_order": False, "shape": (1 << 50, 6)}
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, said)
    with pytest.raises(DataError, match="Unable to allocate"):
        Npz(path=str(path)).load()


def test_inputs_beyond_the_unit_range_name_the_other_scaling(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.scaling=standard"):
        Npz(path=saved(tmp_path).path).load()


def test_fewer_test_samples_are_the_first_ones(tmp_path: Path) -> None:
    source = saved(tmp_path)
    whole = source.load()
    few = Npz(path=source.path, scaling="standard", test_samples=2).load()
    np.testing.assert_array_equal(few.test_inputs, whole.test_inputs[:2])
    np.testing.assert_array_equal(few.train_inputs, whole.train_inputs)
    with pytest.raises(SettingsError, match="test_samples: 6 asked for, npz has 5"):
        Npz(path=source.path, scaling="standard", test_samples=6).load()


def test_idx_files_have_any_names_sizes_and_classes(tmp_path: Path) -> None:
    def write(name: str, array: np.ndarray) -> None:
        sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
        content = bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()
        (tmp_path / name).write_bytes(content)

    source = IdxFiles(folder=str(tmp_path), train_images="mine")
    with pytest.raises(DataError, match=re.escape("has neither mine, train-labels-idx1-ubyte, ")):
        source.load()
    pictures = np.arange(30 * 5 * 7).reshape(30, 5, 7) % 256
    write("mine", pictures)
    write("train-labels-idx1-ubyte", np.arange(30) % 26)
    write("t10k-images-idx3-ubyte", pictures[:4])
    write("t10k-labels-idx1-ubyte", np.arange(4))
    data = source.load()
    assert data.classes == 26
    np.testing.assert_allclose(data.train_inputs[:, 0] * 255, pictures, rtol=1e-6)


def pictures(folder: Path, classes: tuple[str, ...], count: int, size: tuple[int, int]) -> None:
    """Write pictures of one colour per class, which say their class and number."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            colour = (10 * label, number, 200)
            Image.new("RGB", size, colour).save(folder / name / f"{number:03}.png")


def test_folders_of_pictures_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    pictures(tmp_path / "train", ("cat", "ant", "dog"), 4, (6, 5))
    pictures(tmp_path / "test", ("dog", "ant"), 2, (12, 10))
    data = ImageFolder(folder=str(tmp_path), height=5, width=6).load()
    assert data.train_inputs.shape == (12, 3, 5, 6)
    # Ants were written as class 1, cats as 0, dogs as 2: red is ten times that.
    red = np.rint(data.train_inputs[:, 0, 0, 0] * 255).astype(int)
    assert red.tolist() == [10] * 4 + [0] * 4 + [20] * 4
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test_labels.tolist() == [0, 0, 2, 2]
    grey = ImageFolder(folder=str(tmp_path), height=5, width=6, channels=1).load()
    # ITU-R 601-2, as Pillow documents.
    expected = (10 * 299 + 0 * 587 + 200 * 114) / 1000
    assert grey.train_inputs[0, 0, 0, 0] * 255 == pytest.approx(expected, abs=1)


def test_one_folder_of_classes_is_split_class_by_class(tmp_path: Path) -> None:
    pictures(tmp_path, ("a", "b"), 10, (4, 4))
    data = ImageFolder(folder=str(tmp_path), height=4, width=4, test_fraction=0.3).load()
    assert np.bincount(data.test_labels).tolist() == [3, 3]
    numbers = np.concatenate([data.train_inputs, data.test_inputs])[:, :2, 0, 0]
    assert len(np.unique(np.rint(numbers * 255), axis=0)) == 20


def test_folders_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ImageFolder(folder=str(tmp_path / "none"))
    with pytest.raises(DataError, match="is not a folder"):
        source.load()
    source = ImageFolder(folder=str(tmp_path))
    with pytest.raises(DataError, match="has no folders of classes"):
        source.load()
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no pictures below"):
        source.load()
    (tmp_path / "a" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png: cannot be read"):
        source.load()

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(image_folder.importlib, "import_module", missing)
    with pytest.raises(SettingsError, match=r"needs Pillow: pip install 'repast_dist\[images\]'"):
        source.load()


def test_a_network_trains_on_arrays_of_ones_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(96) % 3
    inputs = random.standard_normal((96, 6)) + 3.0 * np.eye(3)[labels].repeat(2, axis=1)
    arrays = {"x_train": inputs[:64], "y_train": labels[:64]}
    arrays |= {"x_test": inputs[64:], "y_test": labels[64:]}
    np.savez(tmp_path / "mine.npz", **arrays)
    run = rd.train(
        "model.layers=[{kind: flatten}, {kind: dense, outputs: 3}]",
        "train.batch_size=32",
        "train.epochs=12",
        {"dataset.path": tmp_path / "mine.npz", "model.input_shape": [1, 1, 6]},
        dataset="npz",
        model="digits_mlp",
        farm="inprocess",
        engine="float64",
        run_root=tmp_path,
    )
    assert run.result["epochs"][-1]["test_accuracy"] > 0.9


def numbers(path: Path, samples: int = 160) -> tuple[dict[str, Any], float]:
    """Save a linear function of 6 features with noise; return settings, and its test loss."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((samples + 64, 6))
    inputs = (inputs - inputs[:samples].mean()) / inputs[:samples].std()
    noise = 0.1 * random.standard_normal((len(inputs), 2))
    targets = inputs @ random.standard_normal((6, 2)) + 3.0 + noise
    arrays = {"x_train": inputs[:samples], "y_train": targets[:samples]}
    arrays |= {"x_test": inputs[samples:], "y_test": targets[samples:]}
    np.savez(path / "mine.npz", **arrays)
    ones = np.ones((len(inputs), 1))
    design = np.hstack([inputs, ones])
    best, *_ = np.linalg.lstsq(design[:samples], targets[:samples], rcond=None)
    left = design[samples:] @ best - targets[samples:]
    settings = {
        "dataset.path": path / "mine.npz",
        "dataset.targets": "numbers",
        "dataset.scaling": "standard",
        "model.input_shape": [1, 1, 6],
        "model.loss": "regression",
    }
    return settings, 0.5 * float(np.mean(np.sum(left**2, axis=1)))


@pytest.mark.slow
def test_a_regression_with_second_order_ends_at_the_least_squares_solution(tmp_path: Path) -> None:
    settings, expected = numbers(tmp_path)
    run = rd.train(
        "model.layers=[{kind: flatten}, {kind: dense, outputs: 2}]",
        "train.batch_size=32",
        "train.epochs=30",
        "optimizer.learning_rate=0.2",
        "optimizer.kl_clip=100",
        "optimizer.damping=0.001",
        settings,
        dataset="npz",
        model="digits_mlp",
        farm="inprocess",
        engine="float64",
        run_root=tmp_path,
    )
    last = run.result["epochs"][-1]
    assert last["test_loss"] == pytest.approx(expected, rel=0.02)
    assert last["test_squared_error"] == pytest.approx(2 * last["test_loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.loss": "cross_entropy"}, "cross_entropy does not fit npz, whose labels are num"),
        ({"model.layers": "[{kind: flatten}, {kind: dense, outputs: 5}]"}, "5 outputs for the 2"),
        ({"dataset.targets": "classes"}, r"labels of shape \(160, 2\); valid: \(160,\) classes"),
    ],
)
def test_numbers_that_do_not_fit_the_loss_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    settings, _ = numbers(tmp_path)
    layers = "[{kind: flatten}, {kind: dense, outputs: 2}]"
    chosen = {"model.layers": layers, "train.batch_size": 32} | settings | changes
    overrides = [f"{name}={value}" for name, value in chosen.items() if name == "model.layers"]
    rest = {name: value for name, value in chosen.items() if name != "model.layers"}
    with pytest.raises((SettingsError, DataError), match=message):
        rd.train(*overrides, rest, dataset="npz", model="digits_mlp", farm="inprocess",
                 engine="float64", run_root=tmp_path)  # fmt: skip


def test_labels_that_are_no_finite_numbers_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path, y_train=np.full((12, 2), np.nan), y_test=np.zeros((5, 2)))
    with pytest.raises(DataError, match="labels have NaN or infinity"):
        Npz(path=source.path, scaling="standard", targets="numbers").load()
    source = saved(tmp_path, y_train=np.zeros((12, 2)), y_test=np.zeros((5, 3)))
    with pytest.raises(DataError, match=r"training labels are \(2,\), test labels \(3,\)"):
        Npz(path=source.path, scaling="standard", targets="numbers").load()
