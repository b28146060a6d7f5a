"""Writes the page of ``study=headline``: ratios, machines, where it goes, and assumptions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repast_dist.network.workload import named_workload
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.studies.costing import (
    NETWORKS,
    size_section,
    size_table,
    table,
    workload_notes,
)
from repast_dist.studies.headline import footings
from repast_dist.studies.headline.bridge import (
    CHIPS,
    ONE_CHIP,
    PLACEMENT,
    bridge_rows,
    schedule_name,
)
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.machines import layer_rows, machines_on
from repast_dist.studies.headline.ratios import RATIOS, mean_rows, published_ratio, ratio_rows
from repast_dist.studies.headline.schedules import schedule_rows
from repast_dist.studies.headline.sensitivity import SHOWN, sensitivity_rows
from repast_dist.studies.published import PublishedRatios

_UNITS = {
    "time_per_sample_s": "s",
    "energy_per_sample_j": "J",
    "step_s": "s",
    "time_to_target_s": "s",
    "energy_to_target_j": "J",
    "power_w": "W",
    "time_s": "s",
    "energy_j": "J",
    "time_share": "fraction",
    "energy_share": "fraction",
}

_COUNTED = {"the same": "geometric mean", "to target": "to target, geometric mean"}
"""Epochs that are compared -> column of the means."""

Row = dict[str, Any]
Rows = list[Row]


def headline_page(inputs: HeadlineInputs) -> StudyPage:
    """Return the comparison: tables per machine, ratios, means, phases and sensitivity."""
    study, epochs = inputs.study, inputs.epochs
    machines, ratios, phases = [], [], []
    for name in study.networks:
        found = machines_on(inputs, name)
        machines += [machine.record(name, epochs) for machine in found]
        phases += [row for machine in found for row in machine.phase_rows(name)]
        ratios += list(ratio_rows(name, found, epochs))
    means = mean_rows(ratios, study.paper)
    mean_of = {(row["footing"], row["ratio"]): row for row in means}
    bridge = bridge_rows(inputs, mean_of)
    sensitivity = sensitivity_rows(inputs) if study.sensitive else []
    return StudyPage(
        study="headline",
        title="RePAST beside a GPU and PipeLayer",
        answer=_answer(inputs, mean_of, bridge),
        tables={
            "footings": table(_footing_rows(study.paper, mean_of), {}),
            "bridge": table(bridge, {}),
            "schedules": table(schedule_rows(inputs, machines), {}),
            "machines": table(machines, _UNITS),
            NETWORKS: size_table(named_workload(name) for name in study.networks),
            "ratios": table(ratios, {}),
            "means": table(means, {}),
            "phases": table(phases, _UNITS),
            "layers": table(
                [row for name in study.networks for row in layer_rows(inputs, name)],
                {"time_share": "fraction", "mac_share": "fraction"},
            ),
            **({"sensitivity": table(sensitivity, {})} if sensitivity else {}),
        },
        sections=[
            _bridge_section(inputs, mean_of),
            _ratio_section(inputs, mean_of),
            _schedule_section(inputs),
            _machine_section(inputs, machines),
            _phase_section(inputs, phases),
            *([_sensitivity_section(inputs, sensitivity[0])] if sensitivity else []),
            dataclasses.replace(
                size_section(),
                notes=workload_notes(named_workload(name) for name in study.networks),
            ),
        ],
        key_figures=[
            KeyFigure(
                name,
                f"{mean_of[footings.IMPLIED, name]['geometric mean']:.3g} x",
                f"per epoch; {mean_of[footings.IMPLIED, name][_COUNTED['to target']]:.3g} x to "
                f"target; the paper: {published.value} x",
                number=mean_of[footings.IMPLIED, name]["geometric mean"],
            )
            for name, published in study.paper.by_name.items()
        ],
        notes=[
            Note(
                "No constant is tuned to reach the paper's figures. The chip's counts are our "
                "assumption, since the paper's are not openly available."
            )
        ],
        captions={
            "footings": "Geometric means over networks, for the same epochs and to target. Chips: "
            f"as many as the power feeds that the paper's ratios imply ({footings.IMPLIED}), as "
            f"the GPU's power feeds ({footings.POWER}), as have the area of its die "
            f"({footings.AREA}), or as reach the paper's speedup over it ({footings.REACHED}). To "
            "target: until the network has learned, which takes fewer epochs of second order; the "
            f"other machine trains first order. {_inferred(inputs)}",
            "ratios": "Per epoch: the same samples, second order on both RePAST and GPU, first "
            "order on PipeLayer. To target: RePAST with second-order epochs against first-order "
            "epochs on the other machine.",
            "schedules": "The row in use is marked; steps between updates of factors and between "
            "inversions.",
            "machines": "Power is the board's for the GPU, and that of the average step else.",
        },
        sources=_sources(inputs),
    )


Means = Mapping[tuple[str, str], Row]
"""(footing, ratio) -> the means over networks."""


def _answer(inputs: HeadlineInputs, means: Means, bridge: Sequence[Row]) -> str:
    speedup, saving = "speedup over GPU", "energy saving over GPU"
    paper, chip = inputs.study.paper, inputs.machine.hardware.chip.name
    factor = {row["what"]: row["factor"] for row in bridge if row["ratio"] == speedup}
    chips, own = means[footings.IMPLIED, speedup]["mean chips"], schedule_name(inputs)

    def ours(ratio: str, column: str = "geometric mean") -> str:
        return f"{means[footings.IMPLIED, ratio][column]:.3g}"

    fast, frugal = "speedup over PipeLayer", "energy saving over PipeLayer"
    return (
        f"{chips:.0f} {chip} chips run an epoch {ours(speedup)} times as fast as {inputs.gpu.name} "
        f"and take {ours(saving)} times less energy (geometric means over "
        f"{len(inputs.study.networks)} networks; the paper: {published_ratio(paper, speedup)} and "
        f"{published_ratio(paper, saving)}). There are {chips:.0f} because the paper's own ratios "
        f"imply a machine that draws {footings.implied_power(paper):.3g} times the GPU's power, "
        f"which feeds so many. The {ours(speedup)} is {factor[ONE_CHIP]:.3g} (one chip, where the "
        f"GPU does the same work){_placed(factor)} times {factor[own]:.3g} ({own}) times "
        f"{factor[CHIPS]:.3g} ({chips:.0f} chips, with {chips:.0f} times the batch). PipeLayer "
        "trains first order and needs more epochs: to the same target the chips are "
        f"{ours(fast, _COUNTED['to target'])} times as fast, "
        f"with {ours(frugal, _COUNTED['to target'])} times less energy (the paper: "
        f"{published_ratio(paper, fast)} and {published_ratio(paper, frugal)})."
    )


def _placed(factor: Mapping[str, float]) -> str:
    """Return what copies of layers multiply the ratio by, where there are any."""
    return f" times {factor[PLACEMENT]:.3g} ({PLACEMENT})" if PLACEMENT in factor else ""


def _footing_rows(paper: PublishedRatios, means: Means) -> Rows:
    """Return the paper's ratios, and per footing ours, per epoch and to target."""
    ratios = paper.by_name
    rows: Rows = [
        {
            "chips": "paper",
            "count": float("nan"),
            "epochs": "",
            **{name: figure.value for name, figure in ratios.items()},
        }
    ]
    for footing in dict.fromkeys(footing for footing, _ in means):
        mine = {name: means[footing, name] for name in ratios}
        for epochs, column in _COUNTED.items():
            rows.append(
                {
                    "chips": footing,
                    "count": next(iter(mine.values()))["mean chips"],
                    "epochs": epochs,
                    **{name: row[column] for name, row in mine.items()},
                }
            )
    return rows


def _sources(inputs: HeadlineInputs) -> list[tuple[str, str]]:
    published = dict.fromkeys(figure.source for figure in inputs.study.paper.by_name.values())
    return [
        *(("paper", source) for source in published),
        ("epochs to target", inputs.epochs.source),
        ("GPU products", inputs.gpu.product_efficiency.source),
        ("GPU convolutions", inputs.gpu.convolution_efficiency.source),
        ("GPU inversion", inputs.gpu.inversion.efficiency.source),
        ("GPU inversion, per column", inputs.gpu.inversion.column_s.source),
        ("PipeLayer", inputs.study.pipelayer.operations_per_s_per_m2.source),
    ]


def _bridge_section(inputs: HeadlineInputs, means: Means) -> StudySection:
    charts = [
        Chart(
            "bridge", "bridge", f"From one chip to the paper: {name}", x="what",
            band=("before", "after"), where={"ratio": name}, axis="geometric mean",
        )
        for name in inputs.study.paper.by_name
    ]  # fmt: skip
    return StudySection(
        "What the ratios consist of",
        charts=charts,
        tables=["footings", "bridge"],
        intro="Read a chart from top to bottom: each bar multiplies what those above it have "
        "reached, blue ones up, orange ones down, from one chip to the paper's figure. The table "
        f"'Bridge' says what each factor means. {_batch(inputs, means)} The changes below are "
        "what the paper may have done otherwise; nothing says that it did. 'Not explained' is what "
        "is left.",
    )


def _inferred(inputs: HeadlineInputs) -> str:
    """Say which power the paper's ratios imply, and what speaks against it."""
    paper, gpu = inputs.study.paper, inputs.gpu
    factor = footings.implied_power(paper)
    power_w = factor * (gpu.board_w.value or 0.0)
    pipelayer = inputs.study.pipelayer
    rate = pipelayer.operations_per_s_per_m2.value or 0.0
    published_w = rate * (pipelayer.area_m2.value or 0.0)
    published_w /= pipelayer.operations_per_joule.value or 1.0
    area_mm2 = inputs.machine.hardware.area_m2 * 1e6
    of_pipelayer = paper.speedup_over_pipelayer.value / paper.energy_saving_over_pipelayer.value
    return (
        f"'{footings.IMPLIED}': the paper's own ratios imply how many chips to compare. Energy is "
        f"power times time, so a machine that is {paper.speedup_over_gpu.value} times as fast with "
        f"{paper.energy_saving_over_gpu.value} times less energy draws {factor:.3g} times the "
        f"GPU's power, here {power_w:,.0f} W, and {of_pipelayer:.2g} times PipeLayer's, whose "
        f"published peaks make {published_w:,.0f} W. This is inferred, not published. Against it "
        f"speaks that PipeLayer's power on {(pipelayer.area_m2.value or 0.0) * 1e6:.1f} mm2 is "
        f"more than a chip can shed, and that our chips for it have {area_mm2:.0f} mm2 each."
    )


def _batch(inputs: HeadlineInputs, means: Means) -> str:
    """Say why so many chips are more than so many times as fast as one."""
    one, implied = (
        means[footing, "speedup over GPU"] for footing in (footings.ONE, footings.IMPLIED)
    )
    return (
        f"The batch grows with the number of chips ({inputs.study.batch_size} samples each; the "
        "other machines keep so many): programming and solving with the blocks of the factors is "
        f"then shared by more chips and more samples, so that {implied['mean chips']:.0f} chips "
        f"are {implied['geometric mean'] / one['geometric mean']:.3g} times as fast as one."
    )


def _schedule_section(inputs: HeadlineInputs) -> StudySection:
    return StudySection(
        "What the GPU renews",
        tables=["schedules"],
        intro="K-FAC codes on GPUs invert whole factors, while the chips invert diagonal blocks of "
        "them. How often they renew factors and inverses is their choice, and published ones range "
        "from every step to every 834 steps; the chips keep their own schedule in all rows.",
        notes=[
            Note(
                f"The GPU's products are {inputs.gpu.product_efficiency.source}; its convolutions "
                f"are {inputs.gpu.convolution_efficiency.source}; its inversion is "
                f"{inputs.gpu.inversion.column_s.source}. study=validate puts all that beside "
                "measurements."
            )
        ],
    )


def _ratio_section(inputs: HeadlineInputs, means: Means) -> StudySection:
    charts = [
        Chart(
            "bars", "ratios", f"RePAST's {name}", x="network", y="per epoch", series="footing",
            where={"ratio": name}, log_y=True, caption="Per epoch.",
            references={"paper's average": published_ratio(inputs.study.paper, name)},
        )
        for name, *_ in RATIOS
    ]  # fmt: skip
    return StudySection(
        "Ratios",
        charts=charts,
        tables=["means", "ratios"],
        intro="Means over all networks, with the paper's four numbers beside. Ratios are given for "
        "several numbers of chips, each with a reason; 'rebuilt' is PipeLayer's chip made of our "
        "parts and mapped as ours are, instead of its published peak.",
        notes=[_about_pipelayer(inputs, means)],
    )


def _machine_section(inputs: HeadlineInputs, machines: Sequence[Row]) -> StudySection:
    fed = [r["chips"] for r in machines if r["footing"] == footings.POWER]
    notes = [
        f"The GPU's power feeds {min(fed)} to {max(fed)} chips at what they draw in an average "
        f"step; a supply for the peak of {inputs.machine.hardware.peak_power_w:.0f} W per chip "
        "would feed fewer.",
        *_reached(inputs, machines),
    ]
    return StudySection(
        "Time and energy per machine", tables=["machines"], notes=[Note(text) for text in notes]
    )


def _phase_section(inputs: HeadlineInputs, phases: Sequence[Row]) -> StudySection:
    charts = [
        Chart(
            "bars", "phases", f"{title} of one chip", x="network", y=column, series="phase",
            where={"machine": "repast", "footing": footings.ONE}, stacked=True, wide=True,
        )
        for title, column in (("Time", "time_share"), ("Energy", "energy_share"))
    ]  # fmt: skip
    charts.append(
        Chart(
            "bars", "layers", "Time of computing by layers of one chip", x="network",
            y="time_share", series="layers", stacked=True, wide=True,
            caption="Quarters of the layers with products, in their order; the table has their "
            "names and their shares of the multiplications.",
        )
    )  # fmt: skip
    return StudySection(
        "Where it goes",
        charts=charts,
        tables=["phases", "layers"],
        intro="Time is given by segments of a step, energy by phases. In 'compute' layers work "
        "side by side; its time is divided among operations by how long they keep the chip busy.",
        notes=[
            Note(
                f"On average {_largest_shares(phases)}. A product takes "
                f"{inputs.machine.hardware.chip.input_bits - 1} passes at one bit each, and a "
                "solve repeats one inversion and one 32-bit product per round."
            )
        ],
    )


def _sensitivity_section(inputs: HeadlineInputs, base: Row) -> StudySection:
    networks = len(inputs.study.sensitive)
    charts = [
        Chart(
            "tornado", "sensitivity", f"{title} of one chip over the GPU", x="constant",
            band=(f"{column}, halved", f"{column}, doubled"), base=base[column],
            where={"charted": "yes"},
            axis=f"{title.lower()}, geometric mean of {networks} networks",
        )
        for title, column in (("Speedup", "speedup"), ("Energy saving", "saving"))
    ]  # fmt: skip
    return StudySection(
        "What the assumptions decide",
        charts=charts,
        tables=["sensitivity"],
        intro="Every constant marked as an assumption and every count that the paper does not "
        f"give, halved and doubled; charts show the {SHOWN} that decide most, the table all. A "
        "count of 1 cannot be halved. Twice the residual.rows have a converter of one bit more, "
        "and twice the levels of a converter are one bit more (adc.bits). How long an inverting "
        "circuit is taken to settle (device.opamp.settled_cycles) decides where answers are read "
        "once they have settled: by single, taylor and refine. Conjugate gradients read after a "
        "time of their own (inversion.array_read_after), which the amplifiers' bandwidth scales.",
    )


def _about_pipelayer(inputs: HeadlineInputs, means: Means) -> Note:
    """Say how PipeLayer is taken, and what it is at equal area and power."""
    rebuilt = means[footings.ONE, "speedup over PipeLayer, rebuilt"]["geometric mean"]
    same_area = (
        means[footings.ONE, "speedup over PipeLayer"]["geometric mean"]
        * (inputs.study.pipelayer.area_m2.value or 0.0)
        / inputs.machine.hardware.area_m2
    )
    same_power = means[footings.ONE, "energy saving over PipeLayer"]["geometric mean"]
    return Note(
        "PipeLayer is taken at its published peak, which favours it most. Beside a first-order "
        "chip of its kind, built from the same parts and mapped the same way, one RePAST chip "
        f"runs an epoch at {rebuilt:.2g} times the speed, since second order does more work. At "
        f"equal area RePAST runs an epoch at {same_area:.2g} times PipeLayer's published speed, "
        f"at equal power at {same_power:.2g} times: the saving of energy is the speedup at equal "
        "power."
    )


def _largest_shares(phases: Sequence[Row]) -> str:
    """Name the three segments that take most of one chip's time, with their mean shares."""
    mine = [r for r in phases if (r["machine"], r["footing"]) == ("repast", footings.ONE)]
    shares = {
        name: float(np.mean([row["time_share"] for row in mine if row["phase"] == name]))
        for name in dict.fromkeys(row["phase"] for row in mine)
    }
    largest = sorted(shares.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {share:.0%}" for name, share in largest)


def _reached(inputs: HeadlineInputs, machines: Sequence[Row]) -> list[str]:
    """Say with how many chips the paper's speedup is reached, if it is."""
    chips = [r["chips"] for r in machines if r["footing"] == footings.REACHED]
    if not chips:
        return []
    area_mm2 = inputs.machine.hardware.area_m2 * 1e6
    ends = sorted({min(chips), max(chips)})
    counts = " to ".join(str(end) for end in ends)
    areas = " to ".join(f"{end * area_mm2:,.0f}" for end in ends)
    return [
        f"The paper's speedup over the GPU is reached with {counts} chips ({areas} mm2 of "
        f"silicon), on {len(chips)} of {len(inputs.study.networks)} networks."
    ]
