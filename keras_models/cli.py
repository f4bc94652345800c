"""Runs one of the three commands: flags, exit codes, and a stderr that is ours alone."""

import contextlib
import faulthandler
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from absl import app, flags

from keras_models.errors import InputError

DONE, FAILED, USAGE, GATE_MISSED, INTERRUPTED = 0, 1, 2, 3, 130


def run(main: Callable[[list[str]], int], *, name: str) -> None:
    """Calls `main` with the words that are not flags and exits with what it returns.

    Exit codes: 0 done; 1 could not do it, one line on stderr; 2 wrong flags; 3 done, but a gate
    the user set was missed; 130 interrupted.  A defect keeps its traceback.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            sys.exit(_fail(name, f"{error} (see --help)", USAGE))
        except SystemExit:  # absl's --help leaves with 1
            sys.exit(DONE)

    def guarded(argv: list[str]) -> int:
        _silence_native_code()
        try:
            return main(argv)
        except app.UsageError as error:
            return _fail(name, f"{error} (see --help)", USAGE)
        except InputError as error:
            return _fail(name, str(error), FAILED)
        except OSError as error:
            place = f": {error.filename}" if error.filename else ""
            return _fail(name, f"{error.strerror or error}{place}", FAILED)
        except KeyboardInterrupt:
            return _fail(name, "interrupted; nothing was written", INTERRUPTED)

    app.run(guarded, flags_parser=parse)


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, file: TextIO
) -> None:
    """Prints a table for people, its first `left` columns aligned left and the others right.

    Each row is a line: a narrow terminal or a pipe must not cost columns or names.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < left else "right")
    for row in rows:
        table.add_row(*row)
    Console(file=file, width=1000, highlight=False, markup=False, emoji=False).print(table)


def _fail(name: str, message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"{name}: {line}", file=sys.stderr)
    return code


def _silence_native_code() -> None:
    """Lets Python alone write to stderr; TensorFlow and TFLite log there past every setting.

    `--verbosity=1` (or higher) keeps their output.  A crash is still explained, by faulthandler.
    """
    if flags.FLAGS.verbosity >= 1:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.suppress(OSError):  # no usable stderr: nothing to keep clean
        ours = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        faulthandler.enable(ours)
