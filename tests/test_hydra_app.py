"""What a user of Hydra types: launchers, sweepers, folders, information, completion."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from repast_dist.cli import main
from repast_dist.ground.files import read_json, write_json
from repast_dist.ground.spec import to_dict
from repast_dist.settings import load_settings

PLAN = ("study=plan", "workload=lenet5")


@pytest.fixture(autouse=True)
def hydras_log_ends_with_the_test() -> Iterator[None]:
    """Hydra's own commands write through a handler of the root logger, which pytest closes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(folder: Path) -> list[dict]:
    return pq.read_table(folder / "tables" / "sweep.parquet").to_pylist()


def figures(run: Path) -> list[dict]:
    return json.loads((run / "answer.json").read_text())["figures"]


@pytest.mark.slow
def test_a_run_goes_where_hydra_is_told(here, capsys):
    words = [*PLAN, "farm.chips=2", "hydra.run.dir=mine/${workload.name}_${farm.chips}"]
    assert main(words) == 0
    folder = here / "mine" / "lenet5_2"
    assert (folder / "report.html").is_file()
    assert not (here / "runs").exists()
    # Again: it is there. Other settings: it is somebody else's.
    before = (folder / "report.html").stat().st_mtime_ns
    assert main(words) == 0
    assert "Finished before" in capsys.readouterr().out
    # So is one that a version began which had fewer settings.
    older = {n: v for n, v in read_json(folder / "settings.json").items() if n != "storage"}
    write_json(folder / "settings.json", older)
    assert main(words) == 0
    assert "Finished before" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_mtime_ns == before
    assert main([*PLAN, "farm.chips=3", "hydra.run.dir=mine/lenet5_2"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is a run with other settings" in line


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "basic"])
def test_a_sweep_is_started_by_the_launcher_that_is_named(here, launcher, capsys):
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    words = [*PLAN, f"hydra/launcher={launcher}", "farm.chips=1,2", "hydra.sweep.dir=all"]
    assert main(["-m", *words]) == 0
    found = rows(here / "all")
    assert [(row["farm.chips"], row["run"]) for row in found] == [(1, "0"), (2, "1")]
    for chips in (1, 2):
        assert main([*PLAN, f"farm.chips={chips}", f"hydra.run.dir=one/{chips}"]) == 0
        assert figures(here / "all" / str(chips - 1)) == figures(here / "one" / str(chips))
    if launcher != "joblib":
        return
    # What is finished is not done again.
    stamps = [(here / "all" / name / "report.html").stat().st_mtime_ns for name in "01"]
    assert main(["-m", *words[:-2], "farm.chips=1,2,4", "hydra.sweep.dir=all"]) == 0
    assert [row["farm.chips"] for row in rows(here / "all")] == [1, 2, 4]
    again = [(here / "all" / name / "report.html").stat().st_mtime_ns for name in "01"]
    assert again == stamps


@pytest.mark.slow
def test_the_best_run_of_a_sweep_comes_first(here, capsys):
    words = [*PLAN, "farm.chips=1,4,2", "hydra.sweep.dir=s", "objective=[step]"]
    assert main(["-m", "-j", "1", *words]) == 0
    steps = [row["step"] for row in rows(here / "s")]
    assert steps == sorted(steps)
    assert len(set(steps)) == 3
    printed = capsys.readouterr().out
    assert "Sweep, best step first" in printed
    # All runs have as many micro-batches.
    assert "micro-batches" not in printed.rpartition("Sweep, best")[2]
    assert "micro-batches" in rows(here / "s")[0]
    assert main(["-m", "-j", "1", *words[:-2], "hydra.sweep.dir=t", "objective=[-step]"]) == 0
    assert [row["step"] for row in rows(here / "t")] == steps[::-1]


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_an_objective_that_runs_do_not_have_ends_a_sweep_after_the_first(here, capsys, jobs):
    words = [*PLAN, "farm.chips=1,2,3,4,5,6,7,8", "hydra.sweep.dir=s", "objective=[speed]"]
    assert main(["-m", "-j", jobs, *words]) == 2
    assert "objective: the answer has no figure 'speed'; valid: step, " in capsys.readouterr().err
    assert len(list((here / "s").glob("*/answer.json"))) <= 2 * int(jobs)


def test_a_wrong_point_is_told_before_anything_is_launched(here, capsys):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [*PLAN, "hydra/launcher=joblib", "farm.chips=1,0"]
    assert main(["-m", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("repast-dist: error: farm.chips: ")
    assert not list(here.iterdir())


@pytest.mark.slow
def test_the_folder_of_a_sweep_side_by_side_is_hydras(here):
    assert main(["-m", *PLAN, "farm.chips=1,2", "hydra.sweep.dir=here/${seed}"]) == 0
    assert [row["run"] for row in rows(here / "here" / "0")] == ["0001", "0002"]
    assert json.loads((here / "here" / "0" / "sweep.json").read_text())["runs"]


class Halving(Sweeper):
    """Asks for the figure at one setting after the other, as optimisers do."""

    asked: list[tuple[str, object]] = []  # noqa: RUF012

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        for number, chips in enumerate((8, 4, 2)):
            words = [*arguments, f"++farm.chips={chips}"]
            (job,) = self.launcher.launch([words], initial_job_idx=number)
            self.asked.append((words[-1], job.return_value))


@pytest.mark.slow
def test_a_sweeper_gets_the_figures_that_are_its_objective(here, capsys, monkeypatch):
    # Hydra takes plug-ins from packages of that name only.
    monkeypatch.setattr(Halving, "__module__", "hydra_plugins.halving")
    monkeypatch.setitem(sys.modules, "hydra_plugins.halving", sys.modules[__name__])
    Plugins.instance().register(Halving)
    target = {"_target_": "hydra_plugins.halving.Halving"}
    ConfigStore.instance().store(group="hydra/sweeper", name="halving", node=target)
    Halving.asked.clear()
    words = [*PLAN, "hydra/sweeper=halving", "hydra.sweep.dir=found"]
    assert main(["-m", *words, "objective=[chips, SOI blocks]"]) == 0
    blocks = {item["name"]: item["value"] for item in figures(here / "found" / "0")}["SOI blocks"]
    assert Halving.asked == [(f"++farm.chips={n}", (float(n), blocks)) for n in (8, 4, 2)]
    assert [row["farm.chips"] for row in rows(here / "found")] == [2, 4, 8]
    words[-1] = "hydra.sweep.dir=other"
    assert main(["-m", *words, "objective=[speed]"]) == 2
    assert "objective: the answer has no figure 'speed'; valid: step, " in capsys.readouterr().err


def test_settings_are_shown_in_part_and_with_hydras_own(capsys):
    assert main(["--cfg", "farm.chips=3", "-p", "farm.chips"]) == 0
    assert capsys.readouterr().out == "chips: 3\n"
    assert main(["--cfg", "job", "-p", "chip.adc", "chip=repast"]) == 0
    assert "\nbits: 8\n" in capsys.readouterr().out
    assert main(["--cfg", "hydra"]) == 0
    assert "subdir: ${hydra.job.num}" in capsys.readouterr().out
    assert main(["--cfg", "all", "--resolve", "seed=5"]) == 0
    assert "seed: 5" in capsys.readouterr().out
    assert main(["--cfg", "hydra", "--resolve", "-p", "hydra.run", "run_root=mine"]) == 0
    assert "\ndir: mine/train/2" in capsys.readouterr().out
    assert main(["--cfg", "-p", "chip.none"]) == 2
    assert "--package: no settings at 'chip.none'; valid: chip." in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["-p", "chip.adc"], ["--resolve"], ["-j", "2"], ["-r", "-m", "seed=1,2"]]
)
def test_a_flag_that_would_do_nothing_is_refused(capsys, words):
    with pytest.raises(SystemExit) as left:
        main([*words, "study=plan", "workload=lenet5"])
    assert left.value.code == 2
    assert f"argument {words[0]}/--" in capsys.readouterr().err or words[0] == "--resolve"


def test_a_resume_without_a_run_is_named(capsys):
    assert main(["resume="]) == 2
    assert "resume: names no run; valid: resume=RUN_DIR" in capsys.readouterr().err


def test_a_long_word_that_is_not_readable_is_cut(capsys):
    assert main(["--cfg", f"components.bus.area_m2.library={'x' * 1000}'{'x' * 2000}"]) == 2
    error = capsys.readouterr().err
    assert "is not readable: " in error
    assert error.endswith("KEY='...'\n")
    assert len(error) < 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/launcher=none_such", "-m", "seed=1,2"], "hydra/launcher: no option 'none_such'"),
        (["hydra.nonsense=3"], "hydra.nonsense"),
        (["--config-name", "none_such"], "--config-name: Cannot find primary config 'none_such'"),
        (["-cd", "no_folder", "hydra.run.dir=x"], "--config-dir: no_folder is no folder"),
        (
            ["hydra.run.dir=x", "chip=none_such"],
            "chip: no option 'none_such'; valid: hp_inv, isaac",
        ),
        (["hydra.run.dir=x", "chip.adc.bitz=3"], "chip.adc.bitz"),
        (["hydra.verbose=1"], "hydra.verbose=1: not what Hydra takes"),
        (["-m", "hydra.launcher=null", "seed=1,2"], "hydra.launcher=null: not what Hydra takes"),
        (["-m", "hydra.sweeper.params={seed: '1,2'}"], "params={seed: '1,2'}: not what Hydra"),
        (["-sc", "install=csh"], "'csh' found; valid: install=bash, install=zsh"),
        (["nonsense"], "'nonsense' is no setting; valid: KEY=VALUE, GROUP=OPTION, ~KEY, or open"),
        (["--info", "farm.chips"], "'farm.chips' is no setting; valid: KEY=VALUE"),
        (["-m", "chip.tiles"], "'chip.tiles' is no setting"),
        (["farm.chips=[1"], "'farm.chips=[1' is not readable: "),
        (["--cfg", "-p", "chip.adc.nope"], "valid: chip.adc.offset_lsb, "),
        (["--cfg", "-p", "seed.nope"], "no settings at 'seed.nope'; valid: seed"),
        (["-j", "0", "-m", "seed=1,2"], None),
    ],
)
def test_what_hydra_cannot_take_is_one_line(words, said, capsys):
    if said is None:
        with pytest.raises(SystemExit):
            main(words)
        assert "'0' is no number of runs; valid: 1 or more" in capsys.readouterr().err
        return
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[0]
    assert all(line.startswith("repast-dist: error: ") for line in lines)


@pytest.mark.slow
def test_another_file_of_defaults_and_other_folders_are_read(here, capsys):
    (here / "my" / "chip").mkdir(parents=True)
    (here / "my" / "lab.yaml").write_text("defaults: [config, _self_]\nseed: 5\nrun_root: lab\n")
    (here / "my" / "chip" / "ours.yaml").write_text("defaults: [small]\nname: ours\ntiles: 3\n")
    words = ["--config-dir", "my", "--config-name", "lab", *PLAN, "chip=ours"]
    assert main([*words, "--cfg", "-p", "chip.tiles"]) == 0
    assert capsys.readouterr().out == "tiles: 3\n"
    assert main(words) == 0
    (run,) = here.glob("lab/plan/*")
    assert json.loads((run / "settings.json").read_text())["seed"] == 5
    assert main([*words, "hydra.run.dir=x"]) == 0
    searched = [f"hydra.searchpath=[file://{here}/my]", *PLAN, "chip=ours", "hydra.run.dir=y"]
    assert main(searched) == 0
    assert figures(here / "x") == figures(run) == figures(here / "y")


def test_groups_are_added_and_values_taken_away_as_hydra_does():
    plain, added = load_settings(["experiment=honest"]), load_settings(["+experiment=honest"])
    assert to_dict(added) == to_dict(plain)
    assert (
        load_settings(["chip=repast", "~chip.tiles"]).chip.tiles
        != load_settings(["chip=repast"]).chip.tiles
    )


def in_a_shell(text: str, **variables: str) -> str:
    bin_folder = str(Path(sys.executable).parent)
    env = {**os.environ, **variables, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, env=env, check=True, timeout=120
    )
    return done.stdout


@pytest.mark.slow
def test_the_shell_completes_groups_and_options(tmp_path):
    main_call = "from repast_dist.cli import main; main()"
    query = f'"{sys.executable}" -c "{main_call}" -sc query=bash'
    line = "repast-dist chip="
    found = in_a_shell(query, COMP_LINE=line, COMP_POINT=str(len(line)))
    files = (Path(__file__).parents[1] / "conf" / "chip").glob("*.yaml")
    assert found.split() == sorted(f"chip={file.stem}" for file in files)
    # Those of a folder that the line names, too; and nothing, quietly, of what is no setting.
    (tmp_path / "chip").mkdir()
    (tmp_path / "chip" / "mine.yaml").touch()
    line = f"repast-dist -cd {tmp_path} chip=m"
    assert in_a_shell(query, COMP_LINE=line, COMP_POINT=str(len(line))).split() == ["chip=mine"]
    # Flags are those of this program, before a setting and behind one.
    for line, words in (
        ("repast-dist --cf", ["--cfg"]),
        ("repast-dist chip=repast --jo", ["--jobs"]),
        ("repast-dist --cfg hy", ["hydra"]),
        ("repast-dist --info=pl", ["--info=plugins"]),
        ("repast-dist --jobs 2 -p chip farm.chips_", ["farm.chips_per_worker="]),
    ):
        found = in_a_shell(f"{query} 2>&1", COMP_LINE=line, COMP_POINT=str(len(line)))
        assert found.split() == words, line
    line = "repast-dist open "
    assert in_a_shell(f"{query} 2>&1", COMP_LINE=line, COMP_POINT=str(len(line))) == ""
    installed = in_a_shell(query.replace("query", "install"))
    assert "hydra_bash_completion" in installed
    in_a_shell(f"{installed}\ncomplete -p repast-dist || true")


def test_information_names_plugins_and_where_settings_come_from(capsys):
    assert main(["--info", "searchpath"]) == 0
    assert main(["chip=repast", "-i", "defaults"]) == 0
    shown = capsys.readouterr()
    assert "chip/repast" in shown.out + shown.err
