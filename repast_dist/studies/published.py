"""Published figures that studies put beside ours; the numbers are in ``conf/study/published/``."""

from repast_dist.ground.spec import spec


@spec
class PublishedFigure:
    """One published figure.

    Attributes
    ----------
    value : float
        The figure.
    unit : str
        Its unit.
    source : str
        Where it was published.
    """

    value: float
    unit: str = "1"
    source: str


@spec
class PublishedRatios:
    """How much faster, and with how much less energy, a chip was reported to train.

    Attributes
    ----------
    speedup_over_gpu, speedup_over_pipelayer : PublishedFigure
        Time per epoch of the other machine over that of the chip.
    energy_saving_over_gpu, energy_saving_over_pipelayer : PublishedFigure
        Energy per epoch of the other machine over that of the chip.
    """

    speedup_over_gpu: PublishedFigure
    speedup_over_pipelayer: PublishedFigure
    energy_saving_over_gpu: PublishedFigure
    energy_saving_over_pipelayer: PublishedFigure

    @property
    def by_name(self) -> dict[str, PublishedFigure]:
        """The figures by the names that tables show."""
        return {
            "speedup over GPU": self.speedup_over_gpu,
            "speedup over PipeLayer": self.speedup_over_pipelayer,
            "energy saving over GPU": self.energy_saving_over_gpu,
            "energy saving over PipeLayer": self.energy_saving_over_pipelayer,
        }
