"""In which settings runs differ, and which of them tell runs apart in a line."""

from repast_dist.studies.differing import differing_settings, told_apart

CHIPS = {"small": {"name": "small", "tiles": 4}, "large": {"name": "large", "tiles": 168}}


def runs(*points):
    return differing_settings([
        {"chip": CHIPS[chip] | {"bits": bits}, "seed": seed} for chip, bits, seed in points
    ])  # fmt: skip


def test_what_a_name_stands_for_is_not_told_again():
    differing = runs(("small", 8, 0), ("large", 8, 0), ("small", 8, 1))
    assert list(differing[0]) == ["chip.name", "chip.tiles", "seed"]
    assert told_apart(differing)[1] == {"chip.name": "large", "seed": 0}


def test_what_differs_beside_a_name_is_told():
    differing = runs(("small", 8, 0), ("large", 8, 0), ("small", 6, 0))
    assert [row["chip.bits"] for row in told_apart(differing)] == [8, 8, 6]


def test_the_option_that_was_chosen_stands_for_its_settings():
    differing = differing_settings([{"device": {"x": n, "y": -n}, "seed": n} for n in (1, 2)])
    choices = [{"device": "ideal", "chip": "small"}, {"device": "honest", "chip": "small"}]
    assert told_apart(differing, choices) == [
        {"device": "ideal", "seed": 1}, {"device": "honest", "seed": 2}
    ]  # fmt: skip
    assert told_apart(differing) == differing


def test_an_option_of_a_study_stands_for_all_that_it_chooses():
    points = [("plan", "small", 1), ("plan", "large", 2), ("explain", "small", 1)]
    differing = differing_settings([
        {"study": {"name": s}, "workload": {"name": f"net of {s}"}, "chip": CHIPS[c], "seed": n}
        for s, c, n in points
    ])  # fmt: skip
    choices = [{"study": study, "chip": chip} for study, chip, _ in points]
    told = told_apart(differing, choices)
    assert list(told[0]) == ["study", "chip", "seed"]
    assert [row["chip"] for row in told] == ["small", "large", "small"]
