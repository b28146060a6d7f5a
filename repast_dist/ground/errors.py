"""Errors that a user can act on; each message names the place and what would be valid."""

_LONGEST_VALUE = 200


class RepastError(Exception):
    """Base of every error this package raises on purpose."""


class SettingsError(RepastError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class DataError(RepastError):
    """Input data is missing, malformed or not finite."""


class IndefiniteError(DataError):
    """A matrix that is to be inverted is not positive definite."""


class InversionError(RepastError):
    """A linear solve did not reach its target and the policy is to stop."""


class CapacityError(RepastError):
    """The work does not fit the arrays it was planned for."""


class FarmError(RepastError):
    """Chips, nodes or the cluster failed in a way the run could not absorb."""


class RunDirectoryError(RepastError):
    """A run directory is incomplete, damaged or already in use."""


class StorageError(RepastError):
    """A store of run directories cannot be reached, or what it holds is damaged or in use."""


class ExportError(RepastError):
    """A run, which is whole, could not be handed to another program."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or a signal, ended a run, which has said how it can be gone on with."""


def brief(value: object) -> str:
    """Return what a message shows of a value that a user gave: its text, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text)} long)"
