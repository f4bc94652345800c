"""The error every package raises for a user's mistake."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line: what was expected, what came, what to do. The commands print it and
    exit with 1; any other exception is a defect and keeps its traceback.
    """
