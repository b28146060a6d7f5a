"""The head of a run's page: the title, the answer in two sentences, key figures, warnings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.report.idle_chips import idle_chips_line
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.run_data import RunData, setting
from repast_dist.report.units import counted, duration, large, lifetime, number, percent, si
from repast_dist.trace.query import Totals
from repast_dist.trace.schema import Phase

_PHASE_WORDS: dict[str, str] = {
    Phase.FORWARD: "the forward pass",
    Phase.BACKWARD: "the backward pass",
    Phase.SOI: "forming the Kronecker factors",
    Phase.INVERSION: "solving with the factors",
    Phase.PRECONDITION: "scaling the preconditioned gradient",
    Phase.UPDATE: "updating the weights",
    Phase.PROGRAM: "writing cells",
    Phase.COMMUNICATE: "communication between chips",
}


def title(run: RunData) -> str:
    """Return the heading: network, data set, method and number of chips."""
    model, data = _named(run, "model"), _named(run, "dataset")
    chips = setting(run.result, "farm.chips", len(np.unique(run.trace["chip"])))
    method = run.result.get("method") or _named(run, "optimizer")
    plural = "" if chips == 1 else "s"
    return f"{model} on {data}, trained with {method} on {chips} chip{plural}"


def answer(run: RunData, total: Totals) -> str:
    """Return what the network learned, and what it cost, in two sentences."""
    epochs = run.result.get("epochs", [])
    learned = "No epoch was finished."
    if epochs:
        last, best = epochs[-1], max(epochs, key=_accuracy_key)
        passed = f"After {counted(last['epoch'], 'epoch')} ({counted(last['step'], 'step')})"
        learned = (
            f"{passed} the network classifies "
            f"{percent(last.get('test_accuracy'))} of the test set correctly"
        )
        if last.get("test_accuracy") is None:
            learned = f"{passed} the test loss is {number(last['test_loss'])}"
            if last.get("test_squared_error") is not None:
                learned += f" and the squared error {number(last['test_squared_error'])} per sample"
        elif best["epoch"] != last["epoch"]:
            learned += f" (best: {percent(best['test_accuracy'])} after epoch {best['epoch']})"
        learned += "."
    if not total.phases:
        return learned
    further = bool(epochs) and total.steps > epochs[-1]["step"]
    whole = f"all {total.steps:,} steps take" if further else "the run takes"
    spent = f"{whole} {si(total.time_s, 's')} and {si(total.energy_j, 'J')}"
    chips = counted(len(total.chips), "simulated chip")
    return f"{learned} On {chips} {spent}: {_dominating(total)}."


def key_figures(run: RunData, total: Totals) -> list[KeyFigure]:
    """Return the tiles below the answer."""
    epochs = run.result.get("epochs", [])
    tiles = []
    if epochs and epochs[-1].get("test_accuracy") is not None:
        tiles.append(KeyFigure("Test accuracy", percent(epochs[-1]["test_accuracy"]), "last epoch"))
    if epochs:
        tiles.append(KeyFigure("Test loss", number(epochs[-1]["test_loss"]), "last epoch"))
    use = [chip.utilisation for chip in total.chips.values()]
    tiles += [
        KeyFigure("Simulated time", si(total.time_s, "s"), counted(total.steps, "step")),
        KeyFigure("Simulated energy", si(total.energy_j, "J"), counted(len(total.chips), "chip")),
    ]
    if use:
        tiles.append(
            KeyFigure(
                "Chip utilisation",
                percent(float(np.mean(use)), 0),
                f"{percent(min(use), 0)} to {percent(max(use), 0)}",
            )
        )
    if run.solves.num_rows:
        converged = float(np.mean(run.solves["converged"].to_numpy(zero_copy_only=False)))
        tiles.append(
            KeyFigure("Solves converged", percent(converged), counted(run.solves.num_rows, "solve"))
        )
    wear = run.result.get("wear")
    if wear and wear["first"]:
        epochs_left = f"{large(wear['lifetime_epochs'])} epochs, until the first wear out"
        tiles.append(KeyFigure("Life of the cells", lifetime(wear["lifetime_s"]), epochs_left))
    if "wall_s" in run.result:
        tiles.append(KeyFigure("Wall time", duration(run.result["wall_s"]), "to simulate it"))
    return tiles


def warnings(run: RunData) -> list[Note]:
    """Return notes on a run that did not finish and on solves that missed their target."""
    notes = []
    status = run.result.get("status")
    if status != "finished":
        why = run.result.get("error", "")
        text = f"This run did not finish ({status})" + (f": {why}" if why else ".")
        notes.append(Note(text, "warning"))
    failed = run.solves.filter(pc.invert(run.solves["converged"]))
    if failed.num_rows:
        worst = failed.sort_by([("residual", "descending")]).slice(0, 1).to_pylist()[0]
        notes.append(
            Note(
                f"{number(failed.num_rows)} of {number(run.solves.num_rows)} solves did not reach "
                f"their target; the worst is block {worst['block']} in step {worst['step']} with a "
                f"relative residual of {number(worst['residual'])} ({worst['method']})."
                + _actions(failed),
                "warning",
            )
        )
    unstable = run.solves.filter(pc.invert(run.solves["stable"]))
    if unstable.num_rows:
        notes.append(
            Note(
                f"{number(unstable.num_rows)} of them had an unstable inverting circuit, whose "
                f"amplifiers run into their rails, and were not solved in analog (block "
                f"{_some_blocks(unstable)}); more "
                "optimizer.damping or inversion.array_regularisation makes it stable.",
                "warning",
            )
        )
    saturated = run.solves.filter(run.solves["saturated"])
    if saturated.num_rows:
        notes.append(
            Note(
                f"In {number(saturated.num_rows)} solves outputs went beyond the amplifiers' swing "
                f"(block {_some_blocks(saturated)}); their answers do not count as converged. More "
                "device.opamp.drive_tests finds a drive that keeps outputs within it.",
                "warning",
            )
        )
    return notes


def _some_blocks(solves: pa.Table) -> str:
    blocks = sorted(set(solves["block"].to_pylist()))
    return f"{', '.join(map(str, blocks[:8]))}{', ...' if len(blocks) > 8 else ''}"


def idle_chips(run: RunData) -> list[Note]:
    """Return a line on chips that are switched off, where they may be."""
    if setting(run.result, "partition.idle_chips", "none") == "none":
        return []
    working, chips = run.result["working_chips"], setting(run.result, "farm.chips", 0)
    objective = setting(run.result, "partition.objective", "time")
    return [Note(idle_chips_line(working, chips, objective))]


def ideal_effects(run: RunData) -> list[Note]:
    """Return a line that names the effects of devices and circuits that are off in the run."""
    off = run.result.get("ideal_effects", [])
    if not off:
        return []
    return [
        Note(
            f"Off in this run: {', '.join(off)}. Settings of device and chip switch them on "
            "(experiment=honest: all but two); docs/effects.md says what each would change, "
            "docs/limits.md what is never modelled."
        )
    ]


def _named(run: RunData, group: str) -> str:
    node = setting(run.result, group, group)
    if isinstance(node, Mapping):
        node = next((node[key] for key in ("name", "kind", "method") if key in node), group)
    return str(node)


def _accuracy_key(epoch: Mapping[str, Any]) -> float:
    accuracy = epoch.get("test_accuracy")
    return -float(epoch["test_loss"]) if accuracy is None else float(accuracy)


def _dominating(total: Totals) -> str:
    """Name the phases with the largest share of time and of energy."""
    slowest, time = max(total.phases.items(), key=lambda item: item[1].time_s)
    hungriest, energy = max(total.phases.items(), key=lambda item: item[1].energy_j)
    share_time, share_energy = percent(time.share_time, 0), percent(energy.share_energy, 0)
    if slowest == hungriest:
        return f"{_PHASE_WORDS[slowest]} takes most of both ({share_time} and {share_energy})"
    return (
        f"{_PHASE_WORDS[slowest]} takes the most time ({share_time}), "
        f"{_PHASE_WORDS[hungriest]} the most energy ({share_energy})"
    )


def _actions(failed: pa.Table) -> str:
    """Say what the divergence policy did with the solves that failed."""
    counts = pc.value_counts(failed["action"].cast(pa.string())).to_pylist()
    words = {
        "damp": "were solved again with more damping",
        "fallback": "were solved by the digital unit instead",
        "use": "were used as they are, as asked for",
        "none": "were used as they are",
    }
    clauses = [
        f"{number(item['counts'])} {words.get(item['values'], item['values'])}" for item in counts
    ]
    return f" Of these, {', '.join(clauses)}."
