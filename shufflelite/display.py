"""Makes foreign text - from files, libraries and tools - safe to show in one line."""

_LONGEST = 300  # characters: a library may quote a whole file


def one_line(message: object) -> str:
    """What a library or a file says, shortened, as a part of an error message."""
    line = " ".join(str(message).split()).rstrip(".") or type(message).__name__
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def printable(text: str) -> str:
    """Escapes control characters, line breaks and what is not Unicode."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def markdown_cell(text: str) -> str:
    """A cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
