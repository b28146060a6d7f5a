"""The house has no circular corridors: every import, deferred ones included, goes one way."""

import functools

import grimp
import pytest

ROOT = "repast_dist"


@functools.cache
def import_graph() -> dict[str, set[str]]:
    """Return module -> modules it imports anywhere: in functions and for types only as well."""
    graph = grimp.build_graph(ROOT)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a ring; empty if there is none."""
    done: set[str] = set()
    for start in sorted(graph):
        if start in done:
            continue
        path = [start]
        waiting = [iter(sorted(graph[start]))]
        while path:
            following = next(waiting[-1], None)
            if following is None:
                done.add(path.pop())
                waiting.pop()
            elif following in path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                path.append(following)
                waiting.append(iter(sorted(graph[following])))
    return []


def test_a_ring_of_imports_is_found_wherever_it_starts() -> None:
    graph = {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}
    assert cycle(graph) == []
    assert cycle({**graph, "d": {"c"}}) == ["d", "c", "d"]


@pytest.mark.parametrize(
    ("room", "allowed"), [("ground", set()), ("trace", {"ground"}), ("report", {"ground", "trace"})]
)
def test_a_lower_room_imports_only_what_it_stands_on(room: str, allowed: set[str]) -> None:
    inside = f"{ROOT}.{room}"
    imported = {
        target.removeprefix(f"{ROOT}.").partition(".")[0]
        for module, targets in import_graph().items()
        if module == inside or module.startswith(f"{inside}.")
        for target in targets
    }
    assert imported - {room} <= allowed


def test_no_module_imports_itself_by_way_of_others() -> None:
    # The settings of a study import what answers it only when it is asked.
    below = {name for name in import_graph() if not name.startswith(f"{ROOT}.studies")}
    assert cycle({name: import_graph()[name] & below for name in below}) == []
