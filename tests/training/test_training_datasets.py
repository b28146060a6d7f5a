"""Data sets: what is shipped, how it is split, and that wrong files are refused."""

import gzip
import hashlib
import io
import re
import tarfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.presets import conf_dir
from repast_dist.settings import load_settings
from repast_dist.training.datasets import DATASETS, cifar10
from repast_dist.training.datasets.digits import Digits
from repast_dist.training.datasets.fashion_small import FashionSmall
from repast_dist.training.datasets.idx import IdxFile, load_idx


def idx(array: np.ndarray, type_code: int = 8) -> bytes:
    """Write IDX as its description says."""
    sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, type_code, array.ndim]) + sizes + array.tobytes()


def test_digits_split_keeps_every_sample_once_and_every_class_share() -> None:
    data = Digits().load()
    both = np.concatenate([data.train_inputs, data.test_inputs]).reshape(1797, -1)
    # Takes long to import.
    from sklearn.datasets import load_digits

    original = (load_digits().data / 16).astype(np.float32)
    order = np.lexsort(both.T), np.lexsort(original.T)
    np.testing.assert_array_equal(both[order[0]], original[order[1]])
    counts = np.bincount(data.train_labels) + np.bincount(data.test_labels)
    np.testing.assert_allclose(np.bincount(data.test_labels) / counts, 0.2, atol=0.003)


def test_the_split_depends_on_its_own_seed() -> None:
    first, again, other = (Digits(split_seed=seed).load().test_inputs for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_shipped_fashion_subset_is_balanced_and_between_0_and_1() -> None:
    data = FashionSmall().load()
    assert data.train_inputs.shape == (10_000, 1, 28, 28)
    assert (np.bincount(data.train_labels) == 1_000).all()
    assert (np.bincount(data.test_labels) == 200).all()
    assert (data.train_inputs.min(), data.train_inputs.max()) == (0.0, 1.0)
    # No test image is among the training images.
    seen = {row.tobytes() for row in data.train_inputs}
    assert not any(row.tobytes() in seen for row in data.test_inputs)


def test_the_shipped_fashion_pictures_fit_their_labels() -> None:
    """Trousers (1) are narrower than pullovers (2), bags (8) wider than tall boots' shafts."""
    data = FashionSmall().load()
    width = (data.train_inputs[:, 0] > 0.2).any(axis=1).sum(axis=1)
    means = [width[data.train_labels == label].mean() for label in range(10)]
    assert means[1] < 0.75 * means[2]
    # A nearest-mean classifier on raw pixels is right about 68 % of the time on the full set.
    flat = data.train_inputs.reshape(10_000, -1)
    centres = np.stack([flat[data.train_labels == label].mean(axis=0) for label in range(10)])
    test = data.test_inputs.reshape(2_000, -1)
    nearest = ((test[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == data.test_labels).mean() == pytest.approx(0.68, abs=0.04)


def test_standard_scaling_uses_the_training_set_only() -> None:
    data = Digits(scaling="standard").load()
    assert data.train_inputs.mean() == pytest.approx(0, abs=1e-6)
    assert data.train_inputs.std() == pytest.approx(1, abs=1e-6)
    unit = Digits().load()
    expected = (unit.test_inputs - unit.train_inputs.mean()) / unit.train_inputs.std()
    np.testing.assert_allclose(data.test_inputs, expected, atol=1e-5)


def test_fewer_training_samples_leave_the_test_set_as_it_is() -> None:
    few, all_of_them = Digits(train_samples=100).load(), Digits().load()
    np.testing.assert_array_equal(few.train_inputs, all_of_them.train_inputs[:100])
    np.testing.assert_array_equal(few.test_inputs, all_of_them.test_inputs)
    with pytest.raises(SettingsError, match="train_samples: 5000 asked for, digits has 1438"):
        Digits(train_samples=5000).load()


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_file_is_read_plain_or_gzipped(tmp_path: Path, zipped: bool) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = idx(array)
    path = tmp_path / ("file.gz" if zipped else "file")
    path.write_bytes(gzip.compress(content) if zipped else content)
    wanted = IdxFile("file", (2, 3, 4), hashlib.sha256(content).hexdigest())
    np.testing.assert_array_equal(load_idx(tmp_path, wanted), array)


ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "neither file nor file.gz"),
        (b"not an idx file", "two zero bytes"),
        (idx(ARRAY, type_code=13), "type 0x0d"),
        (idx(ARRAY)[:-1], "23 bytes of values; its header says 24"),
        (idx(ARRAY)[:9], "inside its header"),
        (idx(ARRAY[0]), r"2 dimensions, \(3, 4\); expected 3, as in \(2, 3, 4\)"),
    ],
)
def test_a_wrong_idx_file_is_refused_with_the_reason(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    wanted = IdxFile("file", (2, 3, 4), hashlib.sha256(idx(ARRAY)).hexdigest())
    with pytest.raises(DataError, match=message):
        load_idx(tmp_path, wanted)


@pytest.mark.parametrize(
    ("array", "message"),
    [(ARRAY[:1], r"holds \(1, 3, 4\), the published file \(2, 3, 4\)"), (ARRAY[::-1], "SHA-256")],
)
def test_another_content_of_the_same_format_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, array: np.ndarray, message: str
) -> None:
    (tmp_path / "file").write_bytes(idx(np.ascontiguousarray(array)))
    wanted = IdxFile("file", (2, 3, 4), hashlib.sha256(idx(ARRAY)).hexdigest())
    np.testing.assert_array_equal(load_idx(tmp_path, wanted), array)
    (warning,) = caplog.messages
    assert re.search(message, warning)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.gz").write_bytes(gzip.compress(idx(ARRAY))[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        load_idx(tmp_path, IdxFile("file", (2, 3, 4), ""))


def test_missing_files_name_the_setting_and_what_to_do(tmp_path: Path) -> None:
    for name in ("mnist", "fashion_mnist", "cifar10"):
        with pytest.raises(DataError, match=r"dataset\.folder: .* put "):
            DATASETS.load({"name": name, "folder": str(tmp_path)}).load()


def test_a_data_set_has_only_the_settings_that_it_reads() -> None:
    own = {name: {f.name for f in fields(DATASETS.get(name))} for name in DATASETS.names()}
    common = {"name", "scaling", "train_samples", "test_samples", "augmentation"}
    files = common | {"folder"}
    assert own == {
        "cifar10": files,
        "digits": common | {"test_fraction", "split_seed"},
        "factory": common | {"factory", "arguments"},
        "fashion_mnist": files,
        "fashion_small": common,
        "idx": files
        | {f"{part}_{what}" for part in ("train", "test") for what in ("images", "labels")},
        "image_folder": files | {"channels", "height", "width", "test_fraction", "split_seed"},
        "letters": files | {"origin", "split_seed"},
        "mnist": files,
        "npz": common | {"path", "targets"},
        "text": common | {"path", "tokens", "test_fraction", "split_seed"},
    }
    with pytest.raises(SettingsError, match=r"dataset\.folder: unknown setting; .*split_seed"):
        load_settings(["dataset=digits", "dataset.folder=x"])
    with pytest.raises(SettingsError, match=r"dataset\.name: no data set 'cats'; valid: cifar10,"):
        load_settings(["dataset=digits", "dataset.name=cats"])


@pytest.mark.slow
def test_every_shipped_choice_of_a_data_set_is_valid() -> None:
    presets = sorted((conf_dir() / "dataset").glob("*.yaml"))
    named = {path.stem: load_settings([f"dataset={path.stem}"]).dataset for path in presets}
    assert {data.name for data in named.values()} == set(DATASETS.names())


def test_cifar_records_are_a_label_and_three_planes() -> None:
    planes = np.arange(3072) % 251
    record = bytes([7]) + planes.astype(np.uint8).tobytes()
    inputs, labels = cifar10.parse_records(record * 2, "batch", records=2)
    assert labels.tolist() == [7, 7]
    np.testing.assert_allclose(inputs[1] * 255, planes.reshape(3, 32, 32), atol=1e-4)
    with pytest.raises(DataError, match="batch: a label of 12"):
        cifar10.parse_records(bytes([12]) + record[1:], "batch", records=1)
    with pytest.raises(DataError, match="3072 bytes, expected 3073"):
        cifar10.parse_records(record[1:], "batch", records=1)


def test_the_cifar_archive_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cifar10, "RECORDS_PER_FILE", 10)
    path = tmp_path / cifar10.ARCHIVE
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number, name in enumerate(names):
            content = (bytes([number]) + bytes(3072)) * 10
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    train, test = cifar10.Cifar10(folder=str(tmp_path)).read()
    assert "not the published file (MD5" in caplog.text
    caplog.clear()
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    train, test = cifar10.Cifar10(folder=str(tmp_path)).read()
    assert not caplog.text
    assert train[0].shape == (50, 3, 32, 32)
    np.testing.assert_array_equal(train[1], np.repeat(np.arange(5), 10))
    assert set(test[1]) == {5}
