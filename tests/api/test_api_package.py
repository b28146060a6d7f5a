"""The package's names come when they are asked for, and not before."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import repast_dist as rd
from repast_dist.cli import main
from repast_dist.ground.presets import setting_groups

HEAVY = {"numpy", "scipy", "ray", "pyarrow", "pydantic", "hydra", "numba", "onnx", "rich"}


def imported_by(code: str) -> set[str]:
    """Return which of the large libraries a process of its own has imported after some code."""
    code = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "repast_dist" in done.stderr.splitlines()
    return HEAVY & set(done.stderr.splitlines())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported_by("import repast_dist") == set()
    assert "numpy" in imported_by("import repast_dist; repast_dist.crossbar")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_answers_questions_about_itself_without_what_computes(option: str) -> None:
    code = "from repast_dist.cli import main\ntry:\n    main(['%s'])\nexcept SystemExit:\n    pass"
    assert imported_by(code % option) == set()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_fits_the_terminal_and_names_every_option_of_every_group(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    examples, groups = text.split("groups and their options")
    assert max(map(len, groups.splitlines())) <= width
    assert width < 80 or max(map(len, examples.splitlines())) <= width
    words = " ".join(groups.split())
    for name, options in setting_groups().items():
        assert f"{name} {', '.join(options)}" in words


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(rd.__file__).read_text())
    guarded = next(item for item in tree.body if isinstance(item, ast.If))
    seen = {}
    for item in guarded.body:
        assert isinstance(item, ast.ImportFrom)
        seen |= {alias.asname: (item.module, alias.name) for alias in item.names}
    assert {*seen, "__version__"} == set(rd.__all__)
    for name, (module, attribute) in seen.items():
        found = getattr(rd, name)
        where = sys.modules[f"{module}"]
        assert found is getattr(where, attribute)
        assert name in dir(rd)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        rd.trian  # noqa: B018


def test_every_registry_of_the_parts_has_its_base_beside_it() -> None:
    from repast_dist.ground.registry import Registry

    registries = [v for v in vars(rd.parts).values() if isinstance(v, Registry)]
    assert len(registries) >= 5
    for registry in registries:
        assert registry.base.__name__ in rd.parts.__all__
