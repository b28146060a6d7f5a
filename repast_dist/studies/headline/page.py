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
    REST,
    bridge_rows,
    schedule_name,
)
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.machines import REPAST, layer_rows, machines_on
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

_SHORT = {"geometric mean": "per epoch", "to target, geometric mean": "to target"}
"""Column of the means -> what it is called beside a figure."""

_LIKE = {
    "speedup over GPU": "geometric mean",
    "energy saving over GPU": "geometric mean",
    "speedup over PipeLayer": "to target, geometric mean",
    "energy saving over PipeLayer": "to target, geometric mean",
}
"""The paper's ratio -> column that compares like with like: the GPU trains second order as the
chips do, PipeLayer first order.
"""

_FOOTING = "'Footing': the reason for a number of chips."
_REBUILT = (
    "'Rebuilt': PipeLayer's chip made of our parts and mapped as ours is, instead of its "
    "published peak."
)

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
            _bridge_section(inputs),
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
        key_figures=_key_figures(inputs, mean_of),
        notes=[
            Note(
                "Geometric means over networks. No constant is tuned; the chip's counts are our "
                "assumption, since the paper's are not open."
            )
        ],
        captions={
            "footings": "Geometric means over networks, per epoch and to target. Footings: chips, "
            f"as many as the power feeds that the paper's ratios imply ({footings.IMPLIED}), as "
            f"the GPU's power feeds ({footings.POWER}), as have the area of its die "
            f"({footings.AREA}), or as reach the paper's speedup over it ({footings.REACHED}). "
            f"{_inferred(inputs)}",
            "bridge": f"What each factor means. {_batch(inputs, mean_of)}",
            "ratios": _terms(inputs),
            "schedules": "The row in use is marked; steps between updates of factors and between "
            "inversions.",
            "machines": "Power is the board's for the GPU, and that of the average step else. "
            f"{_FOOTING} {_REBUILT}",
            "means": f"{_FOOTING} {_REBUILT}",
            "phases": f"{_FOOTING} {_REBUILT}",
        },
        sources=_sources(inputs),
    )


Means = Mapping[tuple[str, str], Row]
"""(footing, ratio) -> the means over networks."""


def _answer(inputs: HeadlineInputs, means: Means, bridge: Sequence[Row]) -> str:
    """Say the ratios over the GPU, what they consist of, and why there are so many chips."""
    speedup, saving = "speedup over GPU", "energy saving over GPU"
    paper, implied = inputs.study.paper, means[footings.IMPLIED, speedup]
    chips = f"{implied['mean chips']:.0f}"
    own = schedule_name(inputs)
    factor = {row["what"]: row["factor"] for row in bridge if row["ratio"] == speedup}
    terms = {
        ONE_CHIP: "one chip, where the GPU does the same work",
        PLACEMENT: "copies of layers in arrays that would be idle",
        own: own,
        CHIPS: f"{chips} chips with {chips} times the batch",
    }
    product = " x ".join(
        f"{factor[name]:.3g} ({text})" for name, text in terms.items() if name in factor
    )
    fast, frugal = (
        f"{means[footings.IMPLIED, name][_LIKE[name]]:.3g}" for name in (speedup, saving)
    )
    return (
        f"{chips} {inputs.machine.hardware.chip.name} chips run an epoch {fast} times as fast as "
        f"{inputs.gpu.name}, with {frugal} times less energy (the paper: "
        f"{published_ratio(paper, speedup)} and {published_ratio(paper, saving)}). {fast} = "
        f"{product}. There are {chips} because the paper's own ratios imply a machine of "
        f"{footings.implied_power(paper):.3g} times the GPU's power, which feeds so many."
    )


def _key_figures(inputs: HeadlineInputs, means: Means) -> list[KeyFigure]:
    """Return our four ratios, as the paper's are to be compared with."""
    figures = []
    for name, published in inputs.study.paper.by_name.items():
        column = _LIKE[name]
        value = means[footings.IMPLIED, name][column]
        detail = f"{_SHORT[column]}; the paper: {published.value} x"
        figures.append(KeyFigure(name, f"{value:.3g} x", detail, number=value))
    return figures


def _terms(inputs: HeadlineInputs) -> str:
    """Explain the words of the page."""
    epochs = inputs.epochs
    return (
        "'Per epoch': both machines pass the same samples, chips and GPU by second order, "
        f"PipeLayer by first. 'To target': until the network has learned, "
        f"{epochs.second_order:g} epochs of second order against {epochs.first_order:g} of first "
        f"on the other machine. {_FOOTING} {_REBUILT}"
    )


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


def _bridge_section(inputs: HeadlineInputs) -> StudySection:
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
        intro=f"{_terms(inputs)} In the charts each bar multiplies what those above it have "
        "reached. After our chips come changes that the paper may have made, though nothing says "
        f"so; what is left is '{REST}'.",
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
            where={"ratio": name}, log_y=True,
            references={"paper's average": published_ratio(inputs.study.paper, name)},
        )
        for name, *_ in RATIOS
    ]  # fmt: skip
    return StudySection(
        "Ratios",
        charts=charts,
        tables=["means", "ratios"],
        intro="Means over all networks, with the paper's four numbers beside, for several numbers "
        f"of chips. {_FOOTING} {_REBUILT}",
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
            where={"machine": REPAST, "footing": footings.ONE}, stacked=True, wide=True,
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
        "count of 1 cannot be halved. Residual products with twice the rows, or passes of twice "
        "the bits (residual.dac_bits, then dac.bits too), have converters that still tell all "
        "levels apart; twice the levels of other converters are one bit more (adc.bits). How long "
        "an inverting circuit is taken to settle (device.opamp.settled_cycles) decides where "
        "answers are read once they have settled: by single, taylor and refine. Conjugate "
        "gradients read after a time of their own (inversion.array_read_after), which the "
        "amplifiers' bandwidth scales.",
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
    mine = [r for r in phases if (r["machine"], r["footing"]) == (REPAST, footings.ONE)]
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
    counts = " to ".join(f"{end:,}" for end in ends)
    areas = " to ".join(f"{end * area_mm2:,.0f}" for end in ends)
    return [
        f"The paper's speedup over the GPU is reached with {counts} chips ({areas} mm2 of "
        f"silicon), on {len(chips)} of {len(inputs.study.networks)} networks."
    ]
