"""Studies of many points: the same records anywhere, kept, gone on with and taken over."""

import functools
import io

import pytest
from rich.console import Console

from repast_dist.farm.specs import FarmSpec
from repast_dist.ground.errors import DataError, RunDirectoryError
from repast_dist.settings import load_settings
from repast_dist.studies.costing import chosen_workload
from repast_dist.studies.points import PointRunner
from repast_dist.studies.scaling.points import scaling_point, scaling_points

FARM = FarmSpec(backend="inprocess")


@functools.cache
def machine():
    return load_settings(["study=scaling"]).machine


def five_points():
    workload = chosen_workload(load_settings(["study=scaling", "workload=lenet5"]))
    return scaling_points([workload], ["weak"], [1, 2, 3, 4, 5], 16, 8)


def points_in(folder, *, points, function=scaling_point, farm=FARM, **options):
    folder.mkdir(exist_ok=True)
    text = io.StringIO()
    runner = PointRunner(folder, farm, Console(file=text, width=200), **options)
    records = runner.records("costing", function, points, shared=machine())
    return records, text.getvalue()


def fails_on_three_chips(shared, point):
    if point.chips == 3:
        raise DataError("three chips")
    return scaling_point(shared, point)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_workers_and_this_process_find_the_same_records_in_the_order_of_the_points(tmp_path):
    here, said = points_in(tmp_path / "here", points=five_points())
    there, _ = points_in(
        tmp_path / "there", points=five_points(), farm=FarmSpec(backend="ray", study_workers=2)
    )
    assert here == there
    assert [record["chips"] for record in here] == [1, 2, 3, 4, 5]
    assert "costing 5/5" in said


def test_what_was_finished_before_a_failure_is_not_computed_again(tmp_path):
    with pytest.raises(DataError, match="three chips"):
        points_in(tmp_path, points=five_points(), function=fails_on_three_chips)
    assert len(list((tmp_path / "points").glob("*.json"))) == 2
    healthy = [point for point in five_points() if point.chips != 3]
    records, said = points_in(tmp_path, points=healthy, function=fails_on_three_chips)
    assert "2 of 4 points are there already" in said
    assert [record["chips"] for record in records] == [1, 2, 4, 5]


def test_a_later_study_takes_over_the_points_that_are_the_same(tmp_path):
    first, _ = points_in(tmp_path / "first", points=five_points()[:3])
    second, said = points_in(
        tmp_path / "second", points=five_points(), reuse=[str(tmp_path / "first")]
    )
    assert "3 of 5 points are there already" in said
    assert second[:3] == first


def test_taking_over_from_a_folder_without_points_is_refused_by_name(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"reuse: .*nothing"):
        points_in(tmp_path / "run", points=five_points(), reuse=[str(tmp_path / "nothing")])
