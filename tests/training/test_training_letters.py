"""Letters: EMNIST's files as they are published, and drawn ones where there are none."""

import gzip
import logging
import zipfile

import numpy as np
import pytest

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.training.datasets.letter_strokes import glyphs
from repast_dist.training.datasets.letters import ARCHIVE, EMNIST, Letters


def idx(array):
    sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def published(count, seed):
    """Return pictures as EMNIST's files hold them, column by column, and labels from 1."""
    random = np.random.default_rng(seed)
    upright = random.integers(0, 256, (count, 28, 28), np.uint8)
    labels = (1 + np.arange(count) % 26).astype(np.uint8)
    return upright, labels, [upright.transpose(0, 2, 1).copy(), labels]


@pytest.fixture
def emnist():
    train, test = published(60, 0), published(30, 1)
    return train, test, [idx(array) for array in train[2] + test[2]]


def test_files_of_emnist_are_turned_upright_counted_from_0_and_mixed(tmp_path, emnist):
    train, test, contents = emnist
    for name, content in zip(EMNIST, contents, strict=True):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    data = Letters(folder=str(tmp_path)).load()
    assert data.source.startswith("EMNIST")
    for inputs, labels, (pictures, numbers, _) in (
        (data.train_inputs, data.train_labels, train), (data.test_inputs, data.test_labels, test),
    ):  # fmt: skip
        levels = np.round(255 * inputs[:, 0]).astype(np.uint8)
        found = {picture.tobytes(): label for picture, label in zip(levels, labels, strict=True)}
        assert len(found) == len(pictures)
        for picture, number in zip(pictures, numbers, strict=True):
            assert found[picture.tobytes()] == number - 1
        assert not np.array_equal(levels, pictures)


def test_the_archive_is_read_like_the_files_in_it(tmp_path, emnist, caplog):
    *_, contents = emnist
    (tmp_path / "files").mkdir()
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as archive:
        for name, content in zip(EMNIST, contents, strict=True):
            archive.writestr(f"gzip/{name}.gz", gzip.compress(content))
            (tmp_path / "files" / name).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        packed = Letters(folder=str(tmp_path)).load()
    assert "not the published file (MD5" in caplog.text
    assert "the published file (124800, 28, 28)" in caplog.text
    plain = Letters(folder=str(tmp_path / "files")).load()
    np.testing.assert_array_equal(packed.train_inputs, plain.train_inputs)
    np.testing.assert_array_equal(packed.test_labels, plain.test_labels)


def test_what_is_wrong_with_files_of_emnist_is_said(tmp_path, emnist):
    train, _, contents = emnist
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as archive:
        archive.writestr(f"gzip/{EMNIST[0]}.gz", gzip.compress(contents[0]))
    with pytest.raises(DataError, match=f"{EMNIST[1]}.gz is not in it"):
        Letters(folder=str(tmp_path)).load()
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as archive:
        archive.writestr(f"gzip/{EMNIST[0]}.gz", b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        Letters(folder=str(tmp_path)).load()
    (tmp_path / ARCHIVE).write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        Letters(folder=str(tmp_path)).load()
    (tmp_path / EMNIST[0]).write_bytes(contents[0])
    with pytest.raises(DataError, match="nor all of emnist-letters-train-images"):
        Letters(folder=str(tmp_path)).load()
    contents[1] = idx(train[1] - 1)
    for name, content in zip(EMNIST, contents, strict=True):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"labels of shape .* from 0 to 25; valid: .* from 1 to 26"):
        Letters(folder=str(tmp_path)).load()
    with pytest.raises(
        DataError, match=r"put them there; valid without them: dataset\.origin=drawn"
    ):
        Letters(folder=str(tmp_path / "none"), origin="emnist").load()


def test_without_files_letters_are_drawn_and_say_so(tmp_path):
    data = Letters(folder=str(tmp_path), train_samples=52, test_samples=26).load()
    assert "stand-in" in data.source
    assert data.train_inputs.shape == (52, 1, 28, 28)
    assert (np.bincount(data.train_labels) == 2).all()
    assert data.train_inputs.min() == 0.0
    assert data.train_inputs.max() == 1.0
    other = Letters(folder=str(tmp_path), train_samples=52, test_samples=26, split_seed=1).load()
    assert not np.array_equal(other.train_inputs, data.train_inputs)
    assert not np.array_equal(data.train_inputs[:26], data.test_inputs)
    with pytest.raises(SettingsError, match=r"dataset\.test_samples: 2601 asked for"):
        Letters(folder=str(tmp_path), train_samples=1, test_samples=2601).load()


def test_more_drawn_letters_begin_with_the_same_ones():
    few = Letters(origin="drawn", train_samples=30, test_samples=3).load()
    more = Letters(origin="drawn", train_samples=60, test_samples=5).load()
    np.testing.assert_array_equal(more.train_inputs[:30], few.train_inputs)
    np.testing.assert_array_equal(more.train_labels[:30], few.train_labels)
    np.testing.assert_array_equal(more.test_inputs[:3], few.test_inputs)


def test_every_letter_has_capitals_and_small_ones_of_three_hands():
    shapes = glyphs()
    assert [len(letter) for letter in shapes] == [6] * 26
    for glyph in (shape for letter in shapes for shape in letter):
        assert np.abs(glyph.points).max() == pytest.approx(1.0)
        # Points are where strokes are: neighbours of a stroke are about one spacing apart.
        steps = np.hypot(*np.diff(glyph.points, axis=0).T)[np.diff(glyph.stroke) == 0]
        assert steps.max() < 1.3 * glyph.spacing


def test_drawn_letters_look_like_their_labels():
    """A nearest neighbour tells most of them; i and l are narrower than m and w."""
    data = Letters(origin="drawn", train_samples=2600, test_samples=260).load()
    flat = data.train_inputs.reshape(2600, -1)
    test = data.test_inputs.reshape(260, -1)
    distance = (test**2).sum(1)[:, None] - 2 * test @ flat.T + (flat**2).sum(1)
    nearest = data.train_labels[distance.argmin(axis=1)]
    assert 0.5 < (nearest == data.test_labels).mean() < 0.95

    def width_over_height(letter):
        of = data.train_inputs[data.train_labels == ord(letter) - ord("a"), 0] > 0.3
        return float((of.any(axis=1).sum(axis=1) / of.any(axis=2).sum(axis=1)).mean())

    assert width_over_height("i") < width_over_height("o") < width_over_height("m")
    assert width_over_height("l") < width_over_height("w")
