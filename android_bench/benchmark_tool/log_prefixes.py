"""Lines of a tool's output, freed of what streams and loggers put around them."""

import re
from dataclasses import dataclass

from android_bench.benchmark_tool.result import ParseError

SEVERITY = re.compile(r"(?:(INFO|WARN|WARNING|VERBOSE|DEBUG|ERROR|FATAL):(?: |$))")
SOURCE = re.compile(r"\[[\w.-]+:[0-9]+\] ?")  # LiteRT's logger names its own source file
LOGCAT = [
    re.compile(  # -v threadtime
        r"[0-9]{2}-[0-9]{2} [0-9:.]+ +(?P<pid>[0-9]+) +[0-9]+ (?P<level>[VDIWEF])"
        r" (?P<tag>[^:]*?) *: ?(?P<message>.*)"
    ),
    re.compile(  # -v time and -v brief
        r"(?:[0-9]{2}-[0-9]{2} [0-9:.]+ +)?(?P<level>[VDIWEF])/(?P<tag>[^(]*?) *"
        r"\( *(?P<pid>[0-9]+)\): ?(?P<message>.*)"
    ),
]
LONGEST = 20_000  # of a line, in letters: the patterns take the square of it
LOGCAT_TAGS = ("tflite", "litert")
CRASH_TAGS = ("AndroidRuntime", "libc")


@dataclass(frozen=True)
class Line:
    """A line without the tool's prefixes."""

    severity: str  # "INFO" where none is told
    text: str


def unwrap(text: str) -> list[list[str]]:
    """Lines of each process, without line ends and logcat's columns; severities are kept."""
    if text and not text.endswith("\n"):
        last = text.rsplit("\n", 1)[-1].strip()
        raise ParseError(f"the output is cut off within its last line, {last[-60:]!r}")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if (longest := max(map(len, lines))) > LONGEST:
        raise ParseError(f"the output has a line of {longest} letters, which no tool prints")
    entries = [
        next(filter(None, (form.fullmatch(line) for form in LOGCAT)), None) for line in lines
    ]
    ours = {entry["pid"] for entry in entries if entry and entry["tag"] in LOGCAT_TAGS}
    if not ours:
        return [lines]
    processes: dict[str, list[str]] = {pid: [] for pid in sorted(ours)}
    order: list[str] = []
    for entry in entries:
        if entry is None or entry["pid"] not in ours:
            continue
        level = {"E": "ERROR: ", "F": "FATAL: "}.get(entry["level"], "")
        if entry["tag"] in LOGCAT_TAGS or (level and entry["tag"] in CRASH_TAGS):
            processes[entry["pid"]].append(level + entry["message"])
            if entry["tag"] in LOGCAT_TAGS:
                order = [pid for pid in order if pid != entry["pid"]] + [entry["pid"]]
    return [processes[pid] for pid in order]


def strip(line: str) -> Line:
    """Takes off the prefixes; two of them come where streams mix."""
    severity, text = "INFO", line.strip()
    while found := SEVERITY.match(text):
        if found[1] in ("ERROR", "FATAL") or severity == "INFO":
            severity = found[1]
        text = text[found.end() :].strip()
    return Line(severity, SOURCE.sub("", text, count=1) if SOURCE.match(text) else text)
