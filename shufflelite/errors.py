"""The error every package raises for a user's mistake."""

LONGEST = 300  # letters: a library may quote the whole file


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line: what was expected, what came, what to do. The commands print it and
    exit with 1; any other exception is a defect and keeps its traceback.
    """


def one_line(said: object) -> str:
    """What a library or a file says, as a part of a message."""
    line = " ".join(str(said).split()).rstrip(".") or type(said).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
