"""Parts of one's own, each in one file outside the package: on the command line, on workers."""

import json
import re
from pathlib import Path

import pytest

from repast_dist.cli import main
from repast_dist.ground.files import RESULT

PLUGINS = Path(__file__).parent / "plugins"
NETWORK = (
    "model=digits_mlp",
    "model.layers=[{kind: flatten},{kind: dense,outputs: 16},"
    "{kind: softplus,sharpness: 3.0},{kind: dense,outputs: 2}]",
    "dataset.name=squares",
    "train.epochs=3",
    "train.batch_size=64",
    "train.micro_batch_size=16",
    "soi.interval=2",
    "farm.chips=2",
)


def named(*names):
    """Return the override that names plug-ins."""
    return f"plugins=[{','.join(str(PLUGINS / f'{name}.py') for name in names)}]"


def run(root, *overrides):
    """Run the command; return the one run directory it left."""
    assert main([f"run_root={root}", *overrides]) == 0
    (folder,) = root.glob("*/*")
    return folder


def losses(folder):
    """Return the losses of all steps."""
    return [step["loss"] for step in json.loads((folder / RESULT).read_text())["steps"]]


PARTS = ("my_cell", "my_scheme", "my_layer", "my_topology", "my_second_order", "my_data")
CHOSEN = (
    named(*PARTS),
    *NETWORK,
    "device.inv_cell.model=multiplied",
    "device.inv_cell.log_sigma=0.02",
    "inversion.method=damped_richardson",
    "inversion.target_bits=8",
    "optimizer.method=input_moments",
    "interconnect.dimensions.0.topology=line",
)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_parts_of_ones_own_train_on_two_workers_with_the_bits_of_one_process(tmp_path):
    on_ray = run(tmp_path / "ray", *CHOSEN, "farm.backend=ray")
    alone = run(tmp_path / "alone", *CHOSEN, "farm.backend=inprocess", "farm.chips=1")
    result = json.loads((on_ray / RESULT).read_text())
    assert losses(on_ray) == losses(alone)
    assert losses(on_ray)[-1] < losses(on_ray)[0]
    assert {Path(name).stem for name in result["plugins"]} == set(PARTS)
    assert all(len(checksum) == 64 for checksum in result["plugins"].values())
    assert result["settings"]["device"]["inv_cell"]["model"] == "multiplied"
    assert result["settings"]["optimizer"]["method"] == "input_moments"
    assert result["settings"]["interconnect"]["dimensions"][0]["topology"] == "line"


def test_a_first_order_optimizer_of_ones_own_trains(tmp_path):
    plugins = named("my_first_order", "my_layer", "my_data")
    chosen = ("optimizer.method=lion", "optimizer.learning_rate=0.003", "farm.backend=inprocess")
    values = losses(run(tmp_path, plugins, *NETWORK, *chosen))
    assert values[-1] < 0.7 * values[0]


def test_a_study_of_ones_own_answers(tmp_path):
    plugins = named("my_study")
    folder = run(tmp_path, plugins, "study.name=largest", "chip=repast", "study.area_mm2=50")
    figures = json.loads((folder / "answer.json").read_text())["figures"]
    assert figures[0]["name"] == "tiles"
    assert figures[0]["value"] > 1


def test_a_line_of_chips_exchanges_slower_than_a_ring(tmp_path):
    from repast_dist.planning.collectives import all_to_all
    from repast_dist.settings import load_settings

    line = load_settings([named("my_topology"), "interconnect.dimensions.0.topology=line"])
    ring = load_settings([])
    times = [all_to_all(item.interconnect, 8, 8e6, 1e6).time_s for item in (line, ring)]
    assert times[0] > times[1]


def test_the_example_of_the_readme_trains(tmp_path):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (example,) = (block for block in blocks if "DATASETS.register" in block)
    (tmp_path / "my_data.py").write_text(example)
    plugins = f"plugins=[{tmp_path / 'my_data.py'}]"
    chosen = ("dataset.name=noise", "model=digits_mlp", "farm.backend=inprocess", "train.epochs=1")
    assert len(losses(run(tmp_path / "runs", plugins, *chosen))) == 3


BROKEN = """
from typing import Literal
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers import OPTIMIZERS, Optimizer

@OPTIMIZERS.register
@spec
class Lazy(Optimizer):
    method: Literal["lazy"] = "lazy"
    def initial_state(self, weights):
        return {}
"""


def test_an_error_names_the_plug_in_and_what_it_lacks(tmp_path, capsys):
    path = tmp_path / "lazy.py"
    path.write_text(BROKEN)
    assert main([f"plugins=[{path}]"]) == 2
    message = capsys.readouterr().err
    assert "lazy.py" in message
    assert "Lazy: lacks update" in message


@pytest.mark.parametrize(
    "counts",
    ["rounds, rounds", "rounds, rounds, 0, rounds[:1].repeat(3)", "rounds, rounds, 0, None"],
)
def test_a_scheme_that_counts_something_else_is_told_so(tmp_path, capsys, counts):
    path = tmp_path / "short.py"
    text = (PLUGINS / "my_scheme.py").read_text()
    path.write_text(text.replace("rounds, rounds, 5 * rounds, 8 * rounds", counts))
    assert main([f"plugins=[{path}]", "inversion.method=damped_richardson", "study=plan"]) == 2
    message = capsys.readouterr().err
    assert "Richardson.per_column: " in message
    assert "valid: four arrays of one number per block" in message


def test_what_a_plug_in_adds_is_offered_where_a_name_is_wrong(tmp_path, capsys):
    assert main([named("my_second_order"), "optimizer.method=input_moment"]) == 2
    assert "input_moments" in capsys.readouterr().err


def test_settings_of_another_member_must_be_its_own(capsys):
    assert main(["optimizer.method=sgd", "optimizer.damping=3"]) == 2
    assert "optimizer.damping: unknown setting; valid: " in capsys.readouterr().err
