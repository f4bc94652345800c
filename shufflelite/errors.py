"""The error that every package raises for a user's mistake."""


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one line: what was expected, what came, what to do. The commands print it and
    exit with 1; any other exception is a defect and keeps its traceback.
    """


class FlagError(InputError):
    """A flag is wrong whatever the files and devices are: the command exits with 2, not 1."""
