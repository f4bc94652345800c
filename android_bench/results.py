"""One row for each model measured: its schema, the JSONL file it is appended to, and the table."""

import contextlib
import dataclasses
import json
import os
import platform
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from android_bench import bundle_info, measure
from android_bench.measurement import (
    DEFAULT_DELEGATE,
    Counted,
    Machine,
    OperatorCount,
    OperatorTime,
)
from shufflelite import lock, schema_check
from shufflelite.atomic import check_folder, named
from shufflelite.errors import InputError
from shufflelite.versions import version

SCHEMA = 2  # to be raised when a field changes its meaning or goes away
_APPENDING = threading.Lock()
_ANOTHER = "choose another file"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model's measurement, as written to disk."""

    schema: int
    date_utc: str
    model: str
    path: str
    size_bytes: int
    sha256: str
    operators: Mapping[str, int]  # of the file, by type
    network: Mapping[str, Any] | None  # see bundle_info.Network; None: not made by `convert`

    median_ms: float | None  # None, with the three that follow: an emulated core has no times
    p5_ms: float | None
    p95_ms: float | None
    min_ms: float | None
    instructions: Mapping[str, int] | None  # of one inference by class, on an emulated core
    first_ms: float | None
    init_ms: float | None

    ratio: float  # median over the rounds of this model's cost over `ratio_to`'s
    ratio_p5: float
    ratio_p95: float
    ratio_to: str

    peak_memory_mb: float | None  # growth of the peak since just before loading; MB: 2**20 bytes
    process_peak_mb: float | None  # the peak itself, with the runtime and Python
    delegate_partitions: int | None
    undelegated_operators: Mapping[str, int] | None
    profile: Sequence[Mapping[str, Any]]  # see measurement.OperatorTime, OperatorCount
    notes: Sequence[str]

    target: str
    runtime: str
    runtime_version: str | None
    threads: int
    delegate: str = DEFAULT_DELEGATE  # that ran; "none" where the one asked for took nothing
    delegate_asked: str = DEFAULT_DELEGATE
    rounds: int  # done, which a time budget may have cut short
    runs: int  # timed inferences in each round
    warmup: int
    seed: int

    cpu: str
    fingerprint: str | None  # of a device
    cores: Sequence[int]  # that the models were kept to; empty: all
    temperature_before_c: float | None
    temperature_after_c: float | None
    governor: str | None
    load_average_before: float | None
    load_average_after: float | None
    shufflelite_version: str | None  # None: not installed
    python_version: str
    command: str


@dataclass(frozen=True)
class Place:
    """Where rows were measured, and by what: those of one place are comparable.

    A device is known by its fingerprint, an emulated core by its name: its fingerprint changes with
    the runtime, of which it shall be told that it became slower.
    """

    kind: str  # of target
    where: str
    cores: tuple[int, ...]
    runtime: str
    threads: int
    delegate: str  # that was asked for: one that takes nothing any more shall be told too

    def __str__(self) -> str:
        where = self.where if self.kind == "emulated" else f"{self.kind} ({self.where})"
        cores = f", cores {' '.join(map(str, self.cores))}" if self.cores else ""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{where}{cores}, {self.runtime}, {threads}, delegate {self.delegate}"


def rows(
    done: measure.Run,
    *,
    plan: measure.Plan,
    target: str,
    runtime: str,
    threads: int,
    command: str,
    delegate: str = DEFAULT_DELEGATE,
) -> list[Row]:
    """Rows of all measured models; ratios are to the first of them."""
    return [
        Row(
            schema=SCHEMA,
            date_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            model=one.model.name,
            path=str(one.model.path),
            size_bytes=one.model.size_bytes,
            sha256=one.model.sha256,
            operators=one.model.operators,
            network=None if found is None else dataclasses.asdict(found),
            **_cost(one.rounds),
            **dataclasses.asdict(measure.ratio(one.rounds, done.measured[0].rounds)),
            ratio_to=done.measured[0].model.name,
            **dataclasses.asdict(one.facts),
            target=target,
            runtime=runtime,
            threads=threads,
            delegate=_ran(delegate, one.facts.delegate_partitions),
            delegate_asked=delegate,
            rounds=len(one.rounds),
            runs=plan.runs,
            warmup=plan.warmup,
            seed=plan.seed,
            cpu=done.before.cpu,
            fingerprint=done.before.fingerprint,
            cores=done.before.cores,
            temperature_before_c=done.before.temperature_c,
            temperature_after_c=done.after.temperature_c,
            governor=done.before.governor,
            load_average_before=done.before.load_average,
            load_average_after=done.after.load_average,
            shufflelite_version=version("shufflelite"),
            python_version=platform.python_version(),
            command=command,
        )
        for one in done.measured
        for found in [bundle_info.of(one.model.path)]
    ]


def _cost(rounds: Sequence[Any]) -> dict[str, Any]:
    if isinstance(rounds[0], Counted):
        nothing = dict.fromkeys(field.name for field in dataclasses.fields(measure.Latency))
        return {**nothing, "instructions": measure.instructions(rounds)}
    return {**dataclasses.asdict(measure.latency(rounds)), "instructions": None}


def _ran(asked: str, partitions: int | None) -> str:
    return "none" if partitions == 0 else asked


def rows_before(out: Path) -> list[Row]:
    """The rows of a file that others can be appended to; makes its folder.

    Raises:
      InputError: It cannot be written, or holds something else.
    """
    flag = f"--out={out}"
    if out == Path(os.devnull):
        return []
    if not out.exists():
        check_folder(out.parent, flag=flag)
        return []
    if not out.is_file():
        raise InputError(f"{flag}: expected a file that can be written")
    try:
        with out.open("ab"):
            return read(out)
    except OSError as error:
        raise InputError(f"{flag}: cannot be written: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"--out: {error}") from error


def append(path: Path, new: Sequence[Row]) -> None:
    """Adds rows behind the others, and removes a half one that a killed run left.

    Rows added by several threads or processes stay together call by call.

    Raises:
      OSError: The disk is full; the file is as it was.
    """
    lines = [json.dumps(dataclasses.asdict(row)).encode() + b"\n" for row in new]
    with _APPENDING, named(path), path.open("a+b", buffering=0) as file:
        lock.lock_file(file)
        end = file.seek(0, os.SEEK_END)
        last = _last_line(file) if end else b""
        if last and _is_whole(last):
            lines.insert(0, b"\n")
        elif last:
            end -= len(last)
            file.truncate(end)
        left = b"".join(lines)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):  # no file: a device
                file.truncate(end)
            raise


def read(path: Path) -> list[Row]:
    """All rows of a file, without one at its end that a killed run left half written.

    Raises:
      InputError: Another line is no row.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not UTF-8")
        raise InputError(
            f"{path}: expected rows of an earlier run ({reason}); {_ANOTHER}"
        ) from error
    return [
        _row(line, place=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
        if number < len(lines) or not line.startswith("{") or _is_whole(line.encode())
    ]


def _row(line: str, *, place: str) -> Row:
    got = repr(line[:40])
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        wrong = f"a damaged one, {got}; delete the line" if line[0] == "{" else f"{got}; {_ANOTHER}"
        raise InputError(f"{place}: expected a row of results, got {wrong}") from error
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        raise InputError(f'{place}: expected a row with "schema": {SCHEMA}, got {got}; {_ANOTHER}')
    asked = fields.get("delegate_asked")
    if asked is None:  # of before 2026-11-23: what was asked for, if anything is told
        asked = fields.get("delegate", DEFAULT_DELEGATE)
        ran = _ran(asked, fields.get("delegate_partitions"))
        fields = {**fields, "delegate": ran, "delegate_asked": asked}
    problem = schema_check.problem(
        fields,
        Row,
        network=bundle_info.Network | None,
        profile=Sequence[OperatorTime | OperatorCount],
    )
    if problem is None and fields["instructions"] is None and fields["median_ms"] is None:
        problem = "has neither instructions nor median_ms"
    if problem is not None:
        raise InputError(
            f"{place}: no row of schema {SCHEMA}: it {problem}; delete the line, or {_ANOTHER}"
        )
    return Row(**fields)


def _last_line(file: BinaryIO) -> bytes:
    """What stands behind the last end of a line."""
    file.seek(-1, os.SEEK_END)
    if file.read() == b"\n":
        return b""
    file.seek(0)
    return file.read().rpartition(b"\n")[2]


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def device(row: Row) -> str:
    """What the models ran on, for people: a phone by its fingerprint, all else by its CPU."""
    is_phone = row.target.startswith("adb")
    return (row.fingerprint or row.cpu) if is_phone else row.cpu


def place(row: Row) -> Place:
    """Where a row was measured."""
    return place_at(
        row.target, row, runtime=row.runtime, threads=row.threads, delegate=row.delegate_asked
    )


def place_at(
    target: str, machine: Machine | Row, *, runtime: str, threads: int, delegate: str
) -> Place:
    """Where rows will have been measured; `delegate` is the one asked for."""
    kind = target.partition(":")[0]
    where = target if kind == "emulated" else (machine.fingerprint or machine.cpu)
    return Place(kind, where, tuple(machine.cores), runtime, threads, delegate)


def latency_ms(row: Row, rows: Sequence[Row]) -> float:
    """The median of the reference among `rows`, times the ratio to it.

    So the drift of the machine between the heats of a sweep is not in it.  Where `rows` lacks the
    reference it is the row's own median.
    """
    reference = next((one for one in rows if one.model == row.ratio_to), row)
    assert reference.median_ms is not None
    return reference.median_ms * row.ratio / reference.ratio


def by_type(row: Row) -> dict[str, tuple[int, float]]:
    """How often its profile holds each type, and the cost: ms, or instructions where row has them.

    The costliest type comes first.
    """
    found: dict[str, tuple[int, float]] = {}
    for operator in row.profile:
        calls, cost = found.get(operator["type"], (0, 0.0))
        found[operator["type"]] = (calls + operator["calls"], cost + operator_cost(operator))
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def operator_cost(operator: Mapping[str, Any]) -> float:
    """The cost that a row of a profile tells, in whatever unit."""
    return float(operator["ms"] if "ms" in operator else operator["instructions"])


def references(rows: Sequence[Row]) -> list[Row | None]:
    """For each row the one that its ratio is to: a run's first, which is written before it.

    None where the file does not hold it.
    """
    found: list[Row | None] = []
    last: dict[tuple[Place, str], Row] = {}
    for row in rows:
        if row.model == row.ratio_to:
            last[place(row), row.model] = row
        found.append(last.get((place(row), row.ratio_to)))
    return found
