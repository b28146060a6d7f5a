"""Says in one line which chips of a machine work, where the others may be switched off."""

_WORSE = {
    "time": "takes longer",
    "energy": "takes more energy",
    "lifetime": "leaves cells a shorter life",
}


def idle_chips_line(working: int, chips: int, objective: str) -> str:
    """Return how many chips work, and why not the others.

    Parameters
    ----------
    working, chips : int
        Chips at work, and chips of the machine.
    objective : {"time", "energy", "lifetime"}
        What is to be best of a step (``partition.objective``).
    """
    if working == chips:
        return f"All {chips:,} chips work (partition.idle_chips=auto)."
    return (
        f"{working:,} of {chips:,} chips work, the others are switched off: a step on all of them "
        f"{_WORSE[objective]} (partition.idle_chips=auto)."
    )
