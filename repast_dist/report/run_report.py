"""The report of one training run, from ``result.json`` and the trace alone."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.ground.files import REPORT, TRACE
from repast_dist.report import figures, palette
from repast_dist.report.page import (
    Code,
    Column,
    KeyFigure,
    Note,
    Page,
    Part,
    Section,
    Table,
    settings_tables,
    write_page,
)
from repast_dist.report.run_data import (
    RunData,
    activity,
    block_work,
    energy_by_component,
    load_run,
    refresh_steps,
    setting,
    step_bars,
)
from repast_dist.report.units import duration, number, percent, si
from repast_dist.trace import read_trace
from repast_dist.trace.query import Totals, step_times, sum_by, totals
from repast_dist.trace.schema import PHASES

_GANTT_CHIPS = 24
_TABLE_ROWS = 500
_SMOOTHED_POINTS = 40
_PHASE_WORDS = {
    "forward": "the forward pass",
    "backward": "the backward pass",
    "soi": "forming the Kronecker factors",
    "inversion": "solving with the factors",
    "precondition": "scaling the preconditioned gradient",
    "update": "updating the weights",
    "program": "writing cells",
    "communicate": "communication between chips",
}
_METHOD_NAMES = {"kfac": "K-FAC", "sgd": "SGD", "adam": "Adam"}


def write_run_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run directory.

    Parameters
    ----------
    run_dir : Path
        Holds ``result.json``, ``trace/`` and, for second-order runs, ``solves/``.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    RunDirectoryError
        Something it reads is missing or damaged.
    """
    run = load_run(run_dir)
    path = run_dir / REPORT
    write_page(run_page(run), path)
    return path


def run_page(run: RunData) -> Page:
    """Return the page of one run."""
    total = totals(run.trace)
    sections = [
        Section("Training", _training(run)),
        Section(
            "Where time and energy go",
            _costs(run, total),
            "Simulated time and energy on the chips. A phase takes as long as its slowest chip; "
            "energies add up over chips.",
        ),
        Section("Chips", _chips(run, total)),
    ]
    if run.solves.num_rows:
        sections.append(
            Section(
                "Inversion",
                _inversion(run),
                "Each Kronecker factor is split into SOI blocks; every block is solved on its "
                "chip's INV and VMM crossbars. Iterations restore the precision that the 8-bit "
                "INV circuit does not have.",
            )
        )
    sections.append(Section("Network, plan and events", _plan(run)))
    sections.append(Section("Settings, sources and versions", _provenance(run)))
    return Page(
        title=_title(run),
        subtitle=f"repast_dist · {run.folder.name} · {run.result.get('status', '')}",
        answer=_answer(run, total),
        sections=[section for section in sections if section.parts],
        key_figures=_key_figures(run, total),
        notes=_warnings(run),
    )


def _title(run: RunData) -> str:
    model, data = _named(run, "model"), _named(run, "dataset")
    chips = setting(run.result, "farm.chips", len(np.unique(run.trace["chip"])))
    method = _METHOD_NAMES.get(optimizer := _named(run, "optimizer"), optimizer)
    plural = "" if chips == 1 else "s"
    return f"{model} on {data}, trained with {method} on {chips} chip{plural}"


def _named(run: RunData, group: str) -> str:
    node = setting(run.result, group, group)
    if isinstance(node, Mapping):
        node = next((node[key] for key in ("name", "kind", "method") if key in node), group)
    return str(node)


def _answer(run: RunData, total: Totals) -> str:
    epochs = run.result.get("epochs", [])
    learned = "No epoch was finished."
    if epochs:
        last, best = epochs[-1], max(epochs, key=_accuracy_key)
        learned = (
            f"After {last['epoch']} epochs ({number(total.steps)} steps) the network classifies "
            f"{percent(last.get('test_accuracy'))} of the test set correctly"
        )
        if last.get("test_accuracy") is None:
            learned = (
                f"After {last['epoch']} epochs ({number(total.steps)} steps) the test loss is "
                f"{number(last['test_loss'])}"
            )
            if last.get("test_squared_error") is not None:
                learned += f" and the squared error {number(last['test_squared_error'])} per sample"
        elif best["epoch"] != last["epoch"]:
            learned += f" (best: {percent(best['test_accuracy'])} after epoch {best['epoch']})"
        learned += "."
    if not total.phases:
        return learned
    return (
        f"{learned} On {len(total.chips)} simulated chip{'s' * (len(total.chips) != 1)} the run "
        f"takes {si(total.time_s, 's')} and {si(total.energy_j, 'J')}: {_dominating(total)}."
    )


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


def _accuracy_key(epoch: Mapping[str, Any]) -> float:
    accuracy = epoch.get("test_accuracy")
    return -float(epoch["test_loss"]) if accuracy is None else float(accuracy)


def _key_figures(run: RunData, total: Totals) -> list[KeyFigure]:
    epochs = run.result.get("epochs", [])
    tiles = []
    if epochs and epochs[-1].get("test_accuracy") is not None:
        tiles.append(KeyFigure("Test accuracy", percent(epochs[-1]["test_accuracy"]), "last epoch"))
    if epochs:
        tiles.append(KeyFigure("Test loss", number(epochs[-1]["test_loss"]), "last epoch"))
    use = [chip.utilisation for chip in total.chips.values()]
    tiles += [
        KeyFigure("Simulated time", si(total.time_s, "s"), f"{number(total.steps)} steps"),
        KeyFigure("Simulated energy", si(total.energy_j, "J"), f"{len(total.chips)} chips"),
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
            KeyFigure(
                "Solves converged", percent(converged), f"{number(run.solves.num_rows)} solves"
            )
        )
    if "wall_s" in run.result:
        tiles.append(KeyFigure("Wall time", duration(run.result["wall_s"]), "to simulate it"))
    return tiles


def _warnings(run: RunData) -> list[Note]:
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
    return notes


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


def _training(run: RunData) -> list[Part]:
    epochs, steps = run.result.get("epochs", []), run.result.get("steps", [])
    parts: list[Part] = []
    for key, title, show_percent in (
        ("loss", "Loss", False),
        ("accuracy", "Accuracy", True),
    ):
        known = [step for step in steps if step.get(key) is not None]
        curves: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        faint: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        if known:
            x, y = [step["step"] for step in known], [step[key] for step in known]
            curves["training, smoothed over steps"] = (x, _smoothed(y))
            faint["training, smoothed over steps"] = (x, y)
        tested = [epoch for epoch in epochs if epoch.get(f"test_{key}") is not None]
        if tested:
            curves["test, per epoch"] = (
                [epoch["step"] for epoch in tested],
                [epoch[f"test_{key}"] for epoch in tested],
            )
        if curves:
            parts.append(
                figures.line(
                    f"{title} over steps",
                    curves,
                    x="training step",
                    y=title.lower(),
                    faint=faint,
                    percent=show_percent,
                    log_y=key == "loss"
                    and all(value > 0 for _, ys in curves.values() for value in ys),
                    caption="Thin line: each step's batch. Dashed: the test set after each epoch.",
                )
            )
    if epochs:
        parts.append(_epoch_table(epochs))
    return parts


def _smoothed(values: Sequence[float]) -> list[float]:
    """Exponential average, corrected for its start."""
    keep = 1 - min(1.0, _SMOOTHED_POINTS / len(values))
    average, weight, smooth = 0.0, 0.0, []
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smooth.append(average / weight)
    return smooth


def _epoch_table(epochs: Sequence[Mapping[str, Any]]) -> Table:
    columns = [Column("epoch", number, True), Column("step", number, True)]
    keys = ["epoch", "step"]
    for key, show in (
        ("train_loss", functools.partial(number, digits=4)),
        ("train_accuracy", functools.partial(percent, digits=2)),
        ("test_loss", functools.partial(number, digits=4)),
        ("test_accuracy", functools.partial(percent, digits=2)),
        ("test_squared_error", functools.partial(number, digits=4)),
    ):
        if any(epoch.get(key) is not None for epoch in epochs):
            columns.append(Column(key.replace("_", " "), show, True))
            keys.append(key)
    rows = [[epoch.get(key) for key in keys] for epoch in epochs]
    return Table("Epochs", columns, rows, folded=len(epochs) > 12)


def _costs(run: RunData, total: Totals) -> list[Part]:
    if not total.phases:
        return []
    shares = {name: [phase.share_time, phase.share_energy] for name, phase in total.phases.items()}
    texts = {
        name: [percent(share, 0) if share >= 0.04 else "" for share in values]
        for name, values in shares.items()
    }
    overview = figures.bars(
        "Share of each phase",
        ["time", "energy"],
        shares,
        y="share",
        stacked=True,
        horizontal=True,
        percent=True,
        colours=_phase_colours(),
        texts=texts,
        height_px=230,
        wide=True,
    )
    by_op = sum_by(run.trace, ("phase", "op"), ("energy_j",)).to_pylist()
    by_op.sort(key=lambda row: (PHASES.index(row["phase"]), -row["energy_j"]))
    tree = figures.treemap(
        "Energy by phase and operation",
        [
            (row["phase"], _words(row["op"]), row["energy_j"])
            for row in by_op
            if row["energy_j"] > 0
        ],
        unit="J",
        root="all energy",
        colours=_phase_colours(),
        caption="Areas are proportional to energy. Click a phase to look inside.",
        wide=True,
    )
    return [overview, _phase_table(total), tree, *_component_tree(run), *_step_costs(run)]


def _component_tree(run: RunData) -> list[Part]:
    per_count = run.result.get("component_energy_j")
    if not per_count:
        return []
    needed = ["phase", "energy_j", "static_j", *per_count]
    joules = energy_by_component(read_trace(run.folder / TRACE, needed), per_count)
    components: dict[str, float] = {}
    for (_, component), value in joules.items():
        components[component] = components.get(component, 0.0) + value
    largest_first = sorted(joules.items(), key=lambda item: -components[item[0][1]])
    return [
        figures.treemap(
            "Energy by component and phase",
            [
                (_words(component), phase, value)
                for (phase, component), value in largest_first
                if value > 0
            ],
            unit="J",
            root="all energy",
            caption="Which parts of the chips the energy goes to. Static: what flows whatever a "
            "chip does. Link: between chips.",
            wide=True,
        )
    ]


def _phase_table(total: Totals) -> Table:
    columns = [
        Column("phase"),
        Column("time", functools.partial(si, unit="s"), True),
        Column("share of time", percent, True),
        Column("chip-seconds busy", functools.partial(si, unit="s"), True),
        Column("energy", functools.partial(si, unit="J"), True),
        Column("share of energy", percent, True),
    ]
    rows = [
        [name, p.time_s, p.share_time, p.busy_s, p.energy_j, p.share_energy]
        for name, p in total.phases.items()
    ]
    return Table(
        "Phases",
        columns,
        rows,
        "Phases may overlap on a chip and chips wait for each other, so the times need not add up "
        f"to the run's {si(total.time_s, 's')}.",
    )


def _step_costs(run: RunData) -> list[Part]:
    steps = step_times(run.trace)
    x = steps["step"].to_pylist()
    return [
        figures.line(
            "Simulated time of each step",
            {"time": (x, steps["time_s"].to_pylist())},
            x="training step",
            y="time",
            unit="s",
            from_zero=True,
            caption="Steps that write refreshed SOI blocks into their arrays stand out.",
        ),
        figures.line(
            "Energy of each step",
            {"energy": (x, steps["energy_j"].to_pylist())},
            x="training step",
            y="energy",
            unit="J",
            from_zero=True,
        ),
    ]


def _phase_colours() -> dict[str, str]:
    return {name: palette.phase(name) for name in PHASES}


def _words(op: str) -> str:
    return op.replace("_", " ")


def _chips(run: RunData, total: Totals) -> list[Part]:
    if not total.chips:
        return []
    labels = [f"{chip}" for chip in total.chips]
    waiting = [
        max(0.0, 1 - use.utilisation - use.communicate_s / total.time_s)
        for use in total.chips.values()
    ]
    utilisation = figures.bars(
        "What each chip does with its time",
        labels,
        {
            "computing": [use.utilisation for use in total.chips.values()],
            "communicating": [use.communicate_s / total.time_s for use in total.chips.values()],
            "waiting": waiting,
        },
        y="share of the run's time",
        x="chip",
        stacked=True,
        percent=True,
        colours={"computing": "@series0", "communicating": "@communicate", "waiting": "@grid"},
        caption="Waiting: for slower chips, or because the plan gave the chip less work.",
    )
    return [
        utilisation,
        _chip_energy(run, labels),
        *_block_balance(run, labels),
        _activity_map(run),
        *_gantts(run),
        _chip_table(total),
    ]


def _chip_energy(run: RunData, labels: Sequence[str]) -> Part:
    sums = sum_by(run.trace, ("chip", "phase"), ("energy_j",)).to_pylist()
    chips = sorted({row["chip"] for row in sums})
    joules = {(row["chip"], row["phase"]): row["energy_j"] for row in sums}
    phases = [name for name in PHASES if any(row["phase"] == name for row in sums)]
    return figures.bars(
        "Energy of each chip by phase",
        labels,
        {name: [joules.get((chip, name), 0.0) for chip in chips] for name in phases},
        y="energy",
        unit="J",
        x="chip",
        stacked=True,
        colours=_phase_colours(),
    )


def _block_balance(run: RunData, labels: Sequence[str]) -> list[Part]:
    """Time on SOI blocks per chip, beside what the best assignment could reach."""
    work = block_work(run.trace)
    if not work.seconds or len(labels) < 2:
        return []
    over = work.busiest_s / work.bound_s - 1
    return [
        figures.bars(
            "Work on SOI blocks per chip",
            labels,
            {name: values.tolist() for name, values in work.seconds.items()},
            y="time",
            unit="s",
            x="chip",
            stacked=True,
            colours=_phase_colours(),
            references={"lower bound": work.bound_s},
            caption="The slowest chip sets the pace. Lower bound: the mean over chips, or the "
            f"largest block. The busiest chip is {percent(over, 0)} above it.",
            wide=True,
        )
    ]


def _activity_map(run: RunData) -> Part:
    busy = activity(run.trace)
    return figures.heat_map(
        "Computing time of chips over the run",
        busy.busy,
        x_values=busy.bin_starts.tolist(),
        y_values=[f"chip {chip}" for chip in busy.chips],
        x="training step",
        y="",
        value="busy",
        percent=True,
        wide=True,
        height_px=min(140 + 26 * busy.chips.size, 620),
        caption="Bright: the chip computes all the time. Dark: it waits or communicates.",
    )


def _gantts(run: RunData) -> list[Part]:
    """One step that refreshes the second-order information, and one that does not."""
    times = step_times(run.trace)
    steps, seconds = times["step"].to_numpy(), times["time_s"].to_numpy()
    soi = np.isin(steps, refresh_steps(run.trace))
    chosen = []
    for mask, title in (
        (soi, "One step that refreshes the second-order information"),
        (~soi, "One step that reuses it" if soi.any() else "One step"),
    ):
        if mask.any():
            chosen.append((_typical(steps[mask], seconds[mask]), title))
    longest = max((float(seconds[steps == step][0]) for step, _ in chosen), default=0.0)
    n_chips = len(np.unique(run.trace["chip"].to_numpy()))
    shown = f"{_GANTT_CHIPS} of {n_chips} chips" if n_chips > _GANTT_CHIPS else "all chips"
    parts: list[Part] = []
    for step, title in chosen:
        bars = step_bars(run.trace, step, _GANTT_CHIPS)
        parts.append(
            figures.gantt(
                f"{title} (step {step})",
                bars.segments,
                lanes=bars.lanes,
                colours=_phase_colours(),
                x_max_s=longest,
                height_px=150 + 44 * len(bars.lanes),
                caption=f"Work of {shown}, coloured by phase; drag to zoom in, double-click to "
                "zoom out. Both steps share the time axis."
                if len(chosen) > 1
                else f"Work of {shown}, coloured by phase; drag to zoom in.",
            )
        )
    return parts


def _typical(steps: np.ndarray, seconds: np.ndarray) -> int:
    """Return the step whose time is the median."""
    return int(steps[np.argsort(seconds, kind="stable")[(steps.size - 1) // 2]])


def _chip_table(total: Totals) -> Table:
    columns = [
        Column("chip", number, True),
        Column("computing", functools.partial(si, unit="s"), True),
        Column("communicating", functools.partial(si, unit="s"), True),
        Column("utilisation", percent, True),
        Column("energy", functools.partial(si, unit="J"), True),
    ]
    rows = [
        [chip, use.compute_s, use.communicate_s, use.utilisation, use.energy_j]
        for chip, use in total.chips.items()
    ]
    return Table("Chips", columns, rows, folded=len(rows) > 8)


def _inversion(run: RunData) -> list[Part]:
    names = _block_names(run)
    blocks = sorted(names)
    steps = np.unique(run.solves["step"].to_numpy())
    shape = (len(blocks), steps.size)
    iterations, residual = np.full(shape, np.nan), np.full(shape, np.nan)
    row = np.searchsorted(blocks, run.solves["block"].to_numpy())
    column = np.searchsorted(steps, run.solves["step"].to_numpy())
    # A block may be solved on several chips: the worst of them counts.
    np.fmax.at(iterations, (row, column), run.solves["iterations"].to_numpy())
    np.fmax.at(residual, (row, column), run.solves["residual"].to_numpy())
    finite = residual[np.isfinite(residual)]
    residual[np.isinf(residual)] = 10 * max(1.0, finite.max(initial=0.0))
    every = max(1, -(-steps.size // 400))
    common: dict[str, Any] = {
        "x_values": steps[::every].tolist(),
        "y_values": [names[block] for block in blocks],
        "x": "training step",
        "y": "",
        "height_px": min(130 + 24 * len(blocks), 720),
    }
    return [
        figures.heat_map(
            "Iterations per SOI block",
            iterations[:, ::every],
            value="iterations",
            caption="Iterations of the slowest right-hand side of each solve.",
            **common,
        ),
        figures.heat_map(
            "Relative residual per SOI block",
            residual[:, ::every],
            value="residual",
            log=True,
            caption="Largest |b − A x| / |b| of each solve; 16 bits are 1.5·10⁻⁵. Solves without a "
            "finite residual are at the bright end.",
            **common,
        ),
        _block_table(run, names),
    ]


def _block_names(run: RunData) -> dict[int, str]:
    """Block number -> how a reader would call it."""
    listed = {
        block["index"]: f"{block['index']}: {block['layer_name']} {block['factor']} "
        f"{block['start']}–{block['stop']}"
        for block in run.result.get("blocks", [])
    }
    return {
        block: listed.get(block, f"{block}") for block in np.unique(run.solves["block"]).tolist()
    }


def _block_table(run: RunData, names: Mapping[int, str]) -> Table:
    sizes = {block["index"]: block["n"] for block in run.result.get("blocks", [])}
    numbers = run.solves.set_column(
        run.solves.schema.get_field_index("converged"),
        "converged",
        pc.cast(run.solves["converged"], pa.float64()),
    )
    grouped = (
        numbers.group_by(["block", "chip"])
        .aggregate(
            [
                ("mean_iterations", "mean"),
                ("iterations", "max"),
                ("residual", "max"),
                ("converged", "mean"),
                ("step", "count"),
            ]
        )
        .sort_by("block")
    )
    columns = [
        Column("block"),
        Column("n", number, True),
        Column("chip", number, True),
        Column("solves", number, True),
        Column("mean iterations", number, True),
        Column("most iterations", number, True),
        Column("largest residual", number, True),
        Column("converged", percent, True),
    ]
    rows = [
        [
            names[row["block"]],
            sizes.get(row["block"]),
            row["chip"],
            row["step_count"],
            row["mean_iterations_mean"],
            row["iterations_max"],
            row["residual_max"],
            row["converged_mean"],
        ]
        for row in grouped.to_pylist()
    ]
    return Table("SOI blocks", columns, rows, folded=len(rows) > 16)


def _plan(run: RunData) -> list[Part]:
    parts: list[Part] = []
    layers = run.result.get("layers", [])
    if layers:
        columns = [
            Column("layer"),
            Column("kind"),
            Column("weights"),
            Column("positions", number, True),
            Column("preconditioned", lambda value: "yes" if value else "no"),
            Column("why"),
        ]
        rows = [
            [
                layer["name"],
                layer["kind"],
                " × ".join(map(number, layer["shape"])) or "none",
                layer["positions"],
                layer["preconditioned"],
                layer["reason"],
            ]
            for layer in layers
        ]
        caption = (
            "Weights: rows (inputs, with one for the bias) by columns (outputs). Positions: how "
            "many input vectors a sample has, such as the pixels a convolution is applied to."
        )
        parts.append(Table("Layers", columns, rows, caption))
    events = run.result.get("events", [])
    if events:
        columns = [Column("step", number, True), Column("event"), Column("what happened")]
        rows = [[e.get("step"), str(e.get("kind", "")), str(e.get("message", ""))] for e in events]
        parts.append(_capped(Table("Events", columns, rows)))
    else:
        parts.append(Note("No events: no chip failed and no solve diverged."))
    return parts


def _capped(table: Table) -> Table:
    if len(table.rows) <= _TABLE_ROWS:
        return table
    caption = f"The first {_TABLE_ROWS} of {len(table.rows):,}; result.json has all."
    return Table(table.title, table.columns, table.rows[:_TABLE_ROWS], caption, folded=True)


def _provenance(run: RunData) -> list[Part]:
    result = run.result
    program, *arguments = str(result.get("command", "")).split(" ")
    facts = [["command", " ".join([Path(program).name, *arguments])]] if program else []
    facts += [
        [name, str(result[key])]
        for key, name in (
            ("seed", "seed"),
            ("started", "started"),
            ("finished", "finished"),
        )
        if key in result
    ]
    facts += [[f"{name} version", str(value)] for name, value in result.get("versions", {}).items()]
    parts: list[Part] = [Table("How it was made", [Column("what"), Column("value")], facts)]
    if result.get("settings"):
        parts += settings_tables(result["settings"])
    parts.append(
        Code(
            "Ask the trace yourself (DuckDB, in the run directory)",
            "SELECT phase, op, sum(energy_j) AS energy_j, sum(duration_s) AS busy_s\n"
            "FROM 'trace/*.parquet' GROUP BY ALL ORDER BY energy_j DESC;",
        )
    )
    return parts
