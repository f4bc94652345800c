"""Splits the output of a tool into lines, without the prefixes of streams and loggers."""

import re
from dataclasses import dataclass

from android_bench.benchmark_tool.delegation import ParseError

MAX_SIZE = 2_000_000  # characters or bytes; the largest profile of ours has a tenth
TOOL_TAGS = ("tflite", "litert")
CRASH_TAGS = ("AndroidRuntime", "libc")
MAX_LINE = 20_000  # the rest of a longer one is ignored
SEVERITY = re.compile(r"(INFO|WARN|WARNING|VERBOSE|DEBUG|ERROR|FATAL):(?: |$)")
SOURCE = re.compile(r"\[[\w./\\-]{1,300}:[0-9]{1,9}\] ?")  # LiteRT's logger prints its source file
LOGCAT = re.compile(  # -v threadtime
    r"[0-9]{2}-[0-9]{2} [0-9:.]{1,20} {1,9}(?P<pid>[0-9]{1,9}) {1,9}[0-9]{1,9}"
    r" (?P<level>[VDIWEF]) (?P<tag>[^:]{0,99}?) *: ?(?P<message>.*)"
)


@dataclass(frozen=True)
class Line:
    """A line without the tool's prefixes."""

    severity: str  # "INFO" if the line has none
    text: str


def split(text: str, *, graph: str | None = None) -> list[Line]:
    """Returns the lines of one run that are not blank.

    Args:
      text: Standard output and error, or a logcat.
      graph: The model's path; of several processes in a logcat, the last that names it is read.

    Raises:
      ParseError: The text ends within a line, is too long, or holds several runs, none of `graph`.
    """
    if len(text) > MAX_SIZE:
        raise ParseError(f"expected at most {MAX_SIZE} characters of output, got {len(text)}")
    if text and not text.endswith("\n"):
        last = text.rsplit("\n", 1)[-1].strip()
        raise ParseError(f"the output is cut off within its last line, {last[-60:]!r}")
    lines = [stripped for line in text.split("\n") if (stripped := line[:MAX_LINE].strip())]
    entries = [match for line in lines if (match := LOGCAT.fullmatch(line))]
    runs: dict[str, list[str]] = {}  # by PID, the one that logged last at the end
    for entry in entries:
        if entry["tag"] in TOOL_TAGS:
            runs[entry["pid"]] = runs.pop(entry["pid"], [])
    for entry in entries:
        level = {"E": "ERROR: ", "F": "FATAL: "}.get(entry["level"], "")
        if entry["tag"] in TOOL_TAGS or (level and entry["tag"] in CRASH_TAGS):
            runs.get(entry["pid"], []).append(level + entry["message"])
    if len(runs) > 1:
        runs = {
            pid: run for pid, run in runs.items() if graph and any(graph in line for line in run)
        }
        if not runs:
            raise ParseError(f"expected a run of {graph}, got several of other models")
    return [_strip(line) for line in (list(runs.values())[-1] if runs else lines) if line]


def _strip(line: str) -> Line:
    """Removes the prefixes; a line has two where streams mix."""
    severity, text = "INFO", line.strip()
    while match := SEVERITY.match(text):
        if match[1] in ("ERROR", "FATAL") or severity == "INFO":
            severity = match[1]
        text = text[match.end() :].strip()
    return Line(severity, SOURCE.sub("", text, count=1) if SOURCE.match(text) else text)
