"""Makes foreign text - names of files, classes and devices, messages of tools - safe to show.

The edges use it, so that nobody else has to: standard output and error are `SafeStream`s, tables
and Markdown are made by `cli`, charts in `plot_style`.
"""

import contextlib
import io
import re
from collections.abc import Iterable, Iterator
from typing import TextIO
from urllib.parse import quote

_LONGEST = 300  # characters: a library may quote a whole file
# What Markdown would obey inside a line: code, cells, HTML, entities, emphasis, a link's address.
_MARKUP = re.compile(r"[\\`|<*]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(")
_BLOCK = re.compile(r"^(\d{0,9})(?=[#>+~=-]|(?<=\d)[.)]|\[.*\]:)")  # at a paragraph's start


class Markdown(str):
    """Text that is Markdown already; any other is escaped before it becomes a part of a page."""


class SafeStream(io.TextIOWrapper):
    """A text stream whose text cannot move the cursor, change colours, or hide and reorder text."""

    obeys = False  # while our own progress bar draws

    def write(self, text: str) -> int:
        """Writes `text`, escaped but for line breaks."""
        return super().write(text if self.obeys else printable(text, keep="\n"))


@contextlib.contextmanager
def drawing(stream: TextIO) -> Iterator[None]:
    """Lets the escape sequences of a progress bar through, which escapes its own text."""
    if not isinstance(stream, SafeStream):
        yield
        return
    stream.obeys = True
    try:
        yield
    finally:
        stream.obeys = False


def one_line(message: object) -> str:
    """What a library or a file says, shortened, as a part of an error message."""
    line = " ".join(str(message).split()).rstrip(".") or type(message).__name__
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def printable(text: str, *, keep: str = "") -> str:
    """Escapes all but `keep` that draws nothing: control and format characters, line breaks."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def printable_line(text: str) -> str:
    """The text in one line."""
    return printable(" ".join(text.split()))


def markdown(text: str) -> Markdown:
    """The text in one line of Markdown, which shows it as it is."""
    if isinstance(text, Markdown):
        return text
    return Markdown(_MARKUP.sub(_escape, printable_line(text)))


def markdown_link(text: str, address: str) -> Markdown:
    """A link to a file beside the page."""
    return Markdown(f"[{re.sub(r'[][]', _escape, markdown(text))}]({quote(address)})")


def markdown_page(parts: Iterable[str]) -> str:
    """A page of these paragraphs and tables."""
    return "\n\n".join(map(_paragraph, parts)) + "\n"


def _escape(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


def _paragraph(text: str) -> str:
    return text if isinstance(text, Markdown) else _BLOCK.sub(r"\1\\", markdown(text))
