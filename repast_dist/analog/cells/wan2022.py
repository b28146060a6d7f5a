"""``wan2022``: the ReRAM of NeuRRAM (Wan et al., Nature 608, 504, 2022)."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from repast_dist.analog.cells.base import CELLS
from repast_dist.analog.cells.gaussian import GaussianCell
from repast_dist.ground.spec import spec

_RANGE_SIEMENS = (1.0e-6, 40.0e-6)
_PROFILE = (0.03279, 0.21452, -0.43716, 0.23363)
"""The fit, rewritten for ``(G - 1) / 39`` and divided by 39."""


@CELLS.register
@spec
class Wan2022(GaussianCell):
    """A ReRAM cell as in NeuRRAM, one second after write-verify.

    The error's standard deviation over the conductance G is the cubic that CrossSim 3
    (``simulator/devices/custom/RRAM_Wan.py``) fitted to Extended Data Fig. 3d at t = 1 s, in
    microsiemens: ``1.053 + 0.2374 G - 0.01167 G^2 + 1.536e-4 G^3``, fitted up to G = 39.26. It is
    valid for conductances from 1 to 40 uS, and says nothing of other times: the cell has no drift.
    Read noise of about 1 % is AIHWKit's note on its model of the same chip.

    Source: Wan et al., "A compute-in-memory chip based on resistive random-access memory", Nature
    608, 504 (2022).

    Attributes
    ----------
    model : {"wan2022"}
        The model's name.
    bits : int
        Levels per cell are ``2 ** bits``; published are 3 bits of magnitude.
    g_on_siemens, g_off_siemens : float
        Range of the fit: 40 and 1 uS.
    programming_sigma : float
        RMS of the fit over the range, relative to it; another value scales the fit.
    read_sigma : float
        Standard deviation of a cell's conductance from read to read, relative to the range.
    write_pulses : float
        Mean number of SET and RESET pulses until a cell lies near enough to its target, in one
        round of write-verify: 8.52 (Methods of the paper, recalled; the caption of Extended Data
        Fig. 3f, which shows their distribution, gives no number). It does not follow
        `programming_sigma`: more rounds lessen it (Fig. 3e), but no mean is known for them.
    write_verify : bool
        Whether every pulse is followed by a read of the cell, as it is there.
    """

    model: Literal["wan2022"] = "wan2022"
    bits: Annotated[int, Ge(1), Le(8)] = 3
    g_on_siemens: Annotated[float, Gt(0)] = _RANGE_SIEMENS[1]
    g_off_siemens: Annotated[float, Ge(0)] = _RANGE_SIEMENS[0]
    programming_sigma: Annotated[float, Ge(0)] = 0.0534
    read_sigma: Annotated[float, Ge(0)] = 0.01
    write_pulses: Annotated[float, Ge(1)] = 8.52
    write_verify: bool = True

    def __post_init__(self) -> None:
        if (self.g_off_siemens, self.g_on_siemens) != _RANGE_SIEMENS:
            raise ValueError(
                f"g_off_siemens={self.g_off_siemens}, g_on_siemens={self.g_on_siemens}: the fit is "
                "of 1 to 40 uS; valid: 1.0e-6 and 40.0e-6, or model reram with a profile of your "
                "own"
            )

    @property
    def profile(self) -> tuple[float, ...]:
        """How the programming error depends on the conductance: the fit."""
        return _PROFILE
