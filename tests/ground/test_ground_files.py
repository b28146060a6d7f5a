"""Files appear whole or not at all."""

import pytest

from repast_dist.ground.files import replaced


def test_a_file_keeps_its_old_content_until_the_new_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replaced(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with replaced(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    path = tmp_path / "step"
    path.mkdir()
    (path / "gone").write_text("x")
    with replaced(path) as aside:
        aside.mkdir()
        (aside / "kept").write_text("y")
    assert [item.name for item in path.iterdir()] == ["kept"]
