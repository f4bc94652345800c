"""Splits the output of a tool into lines, without the prefixes of streams and loggers."""

import re
from dataclasses import dataclass

from android_bench.benchmark_tool.result import ParseError

SEVERITY = re.compile(r"(?:(INFO|WARN|WARNING|VERBOSE|DEBUG|ERROR|FATAL):(?: |$))")
SOURCE = re.compile(r"\[[\w./\\-]+:[0-9]+\] ?")  # LiteRT's logger prints its own source file
LOGCAT = [
    re.compile(  # -v threadtime
        r"[0-9]{2}-[0-9]{2} [0-9:.]+ +(?P<pid>[0-9]+) +[0-9]+ (?P<level>[VDIWEF])"
        r" (?P<tag>[^:]*): ?(?P<message>.*)"
    ),
    re.compile(  # -v time and -v brief
        r"(?:[0-9]{2}-[0-9]{2} [0-9:.]+ +)?(?P<level>[VDIWEF])/(?P<tag>[^(]*)"
        r"\( *(?P<pid>[0-9]+)\): ?(?P<message>.*)"
    ),
]
LOGCAT_TAGS = ("tflite", "litert")
CRASH_TAGS = ("AndroidRuntime", "libc")


@dataclass(frozen=True)
class Line:
    """A line without the tool's prefixes."""

    severity: str  # "INFO" if the line has none
    text: str


def split(text: str, *, graph: str | None = None) -> list[Line]:
    """Returns the lines of one run.

    Args:
      text: Standard output and error, or a logcat.
      graph: The model's path; of several processes in a logcat, the last that names it is read.

    Raises:
      ParseError: The text ends within a line, or holds several runs and none is of `graph`.
    """
    if text and not text.endswith("\n"):
        last = text.rsplit("\n", 1)[-1].strip()
        raise ParseError(f"the output is cut off within its last line, {last[-60:]!r}")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    entries = [match for line in lines if (match := _logcat_entry(line))]
    processes: dict[str, list[str]] = {}  # by PID, the one that logged last at the end
    for entry in entries:
        if entry["tag"].strip() in LOGCAT_TAGS:
            processes[entry["pid"]] = processes.pop(entry["pid"], [])
    for entry in entries:
        level = {"E": "ERROR: ", "F": "FATAL: "}.get(entry["level"], "")
        if entry["tag"].strip() in LOGCAT_TAGS or (level and entry["tag"].strip() in CRASH_TAGS):
            processes.get(entry["pid"], []).append(level + entry["message"])
    if len(processes) > 1:
        named = [one for one in processes.values() if graph and any(graph in line for line in one)]
        if not named:
            raise ParseError(f"expected one run of {graph}, got {len(processes)} of other models")
        lines = named[-1]
    elif processes:
        (lines,) = processes.values()
    return [_strip(line) for line in lines]


def _logcat_entry(line: str) -> re.Match[str] | None:
    return next(filter(None, (form.fullmatch(line) for form in LOGCAT)), None)


def _strip(line: str) -> Line:
    """Removes the prefixes; a line has two where streams mix."""
    severity, text = "INFO", line.strip()
    while match := SEVERITY.match(text):
        if match[1] in ("ERROR", "FATAL") or severity == "INFO":
            severity = match[1]
        text = text[match.end() :].strip()
    return Line(severity, SOURCE.sub("", text, count=1) if SOURCE.match(text) else text)
