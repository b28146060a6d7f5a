"""Errors that a user can act on; each message names the place and what would be valid."""


class RepastError(Exception):
    """Base of every error this package raises on purpose."""


class SettingsError(RepastError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class DataError(RepastError):
    """Input data is missing, malformed or not finite."""


class InversionError(RepastError):
    """A linear solve did not reach its target and the policy is to stop."""


class CapacityError(RepastError):
    """The work does not fit the arrays it was planned for."""


class FarmError(RepastError):
    """Chips, nodes or the cluster failed in a way the run could not absorb."""


class RunDirectoryError(RepastError):
    """A run directory is incomplete, damaged or already in use."""
