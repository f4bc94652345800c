"""The error of a flag that can never be right."""

from shufflelite.errors import InputError


class FlagError(InputError):
    """A flag is wrong whatever the files and devices are: the command leaves with 2, not 1."""
