"""Runs a command: flags, --help, exit codes, and a stderr that is ours alone."""

import contextlib
import faulthandler
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any, TextIO

from absl import app, flags

from shufflelite import scratch
from shufflelite.display import Markdown, SafeStream, markdown, one_line, printable, printable_line
from shufflelite.errors import FlagError, InputError
from shufflelite.flags import define, define_help

DONE, FAILED, USAGE, GATE_MISSED = 0, 1, 2, 3
_OF_MEMORY = {  # exception: part of its text that means too little memory
    "ResourceExhaustedError": "",
    "AbortedError": "Status: 1, message",  # oneDNN's number for out of memory
    "ImportError": "failed to map segment",
    "EncodeError": "Failed to serialize",
    "RuntimeError": "can't start new thread",
    "TypeError": "descriptor pool: out of memory",
}


def run(main: Callable[[list[str]], int], *, name: str, settings: Sequence[type] = ()) -> None:
    """Calls `main` with the arguments that are not flags and exits with the code it returns.

    Exit codes: 0 done; 1 could not do it, one line on stderr; 2 wrong flags; 3 done, but a gate
    the user set was missed; 130 interrupted (Ctrl-C); 143 terminated.  A defect keeps its
    traceback.

    Args:
      main: The command; its module's docstring is the text of --help.
      name: The command's, before its messages.
      settings: Dataclasses whose flags the command has.
    """
    define(*settings)

    def parse(argv: list[str]) -> list[str]:
        if settings:
            define_help(sys.modules["__main__"].__doc__ or "", settings)
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            sys.exit(_fail(name, f"{error} (see --help)", USAGE))
        except SystemExit:  # absl's own --help exits with 1
            sys.exit(DONE)

    def guarded(argv: list[str]) -> int:
        _silence_native_code()
        stops = _Stops()
        scratch.make()
        try:
            code = main(argv)
            sys.stdout.flush()
            return code
        except (app.UsageError, FlagError) as error:
            return _fail(name, f"{error} (see --help)", USAGE)
        except InputError as error:
            return _fail(name, str(error), FAILED)
        except OSError as error:
            path = f": {error.filename}" if error.filename else ""
            return _fail(name, f"{error.strerror or error}{path}", FAILED)
        except BaseException as error:
            if stops.first:  # libraries may have turned it into another exception
                stops.end()
                scratch.remove()
                how = "interrupted" if stops.first == signal.SIGINT else "terminated"
                os._exit(_fail(name, f"{how}; no file was left half-written", 128 + stops.first))
            if _is_of_memory(error):
                with contextlib.suppress(OSError):
                    sys.stdout.flush()
                scratch.remove()
                # sys.exit would wait forever for a native thread that could not start.
                os._exit(_fail(name, _out_of_memory(error), FAILED))
            raise
        finally:
            stops.end()  # too late to stop: only atexit functions follow

    _open_streams()
    app.run(guarded, flags_parser=parse)


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    known = _OF_MEMORY.get(type(error).__name__)  # TensorFlow is not imported here
    return known is not None and known in str(error)


def _out_of_memory(error: BaseException) -> str:
    return "not enough memory" + (f": {one_line(error)}" if str(error) else "")


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, file: TextIO
) -> None:
    """Prints a table of any texts, its first `left` columns aligned left and the others right.

    Each row is one line, also in a narrow terminal or a pipe: no column or name is cut.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(printable(heading), justify="left" if i < left else "right")
    for row in rows:
        table.add_row(*map(printable, row))
    Console(file=file, width=1000, highlight=False, markup=False, emoji=False).print(table)


def print_facts(facts: Iterable[tuple[str, object]], *, width: int = 10) -> None:
    """Prints a line for each fact on standard output, as `weights    runs/weights.h5`."""
    for name, value in facts:
        print(f"{name:{width}} {printable(str(value))}")


def markdown_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1
) -> Markdown:
    """Returns the table in Markdown; cells are escaped unless they are `Markdown`."""
    rule = ["---"] * left + ["---:"] * (len(headings) - left)
    lines = (" | ".join(map(markdown, row)) for row in (headings, rule, *rows))
    return Markdown("\n".join(f"| {line} |" for line in lines))


def _fail(name: str, message: str, code: int) -> int:
    print(f"{name}: {printable_line(message)}", file=sys.stderr)
    return code


class _Stream(io.FileIO):
    """Standard output or error; errors of type `lost`, and all after any error, are ignored."""

    def __init__(self, descriptor: int, lost: type[OSError]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._lost = lost
        self._broken = False

    def write(self, data: Any) -> int:
        try:
            return len(data) if self._broken else super().write(data) or 0
        except OSError as error:
            self._broken = True  # Python flushes once more at exit
            if not isinstance(error, self._lost):
                error.filename = "stdout"
                raise
            return len(data)


def _open_streams() -> None:
    """Makes stdout and stderr robust against their environment.

    A reader may close the pipe early (`| head`), a log's disk may be full, names of files may hold
    characters that the terminal cannot show, and either stream may be closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file gets this number, and logs are written into it
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _text(sys.stdout, 1, BrokenPipeError)
    sys.stderr = _text(sys.stderr, 2, OSError)


def _text(stream: TextIO | None, descriptor: int, lost: type[OSError]) -> TextIO:
    return SafeStream(
        io.BufferedWriter(_Stream(descriptor, lost)),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor != 1 or os.isatty(descriptor),
    )


class _Stops:
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt, repeatedly until one gets through.

    __del__ methods, callbacks of weak references and C++ code swallow exceptions.
    """

    AGAIN_S = 1.0  # enough time to clean up

    def __init__(self) -> None:
        self.first: int | None = None  # the signal that came first
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as in a shell's background jobs
                signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._stop)
        sys.unraisablehook = self._swallowed

    def end(self) -> None:
        """Ignores signals from here on."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or number
        if number == signal.SIGALRM or not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, self.AGAIN_S)
            raise KeyboardInterrupt

    def _swallowed(self, what: Any) -> None:
        if not self.first:
            sys.__unraisablehook__(what)
        elif what.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.01)


def _silence_native_code() -> None:
    """Keeps native code off stderr: TensorFlow and TFLite log there whatever their settings.

    `--verbosity=1` (or higher) keeps their output, and Python's warnings, which are for developers.
    faulthandler still explains a crash.
    """
    if flags.FLAGS.verbosity >= 1:
        return
    if not sys.warnoptions:  # python -W
        warnings.simplefilter("ignore")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr = _text(sys.stderr, os.dup(2), OSError)
    faulthandler.enable(sys.stderr)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
