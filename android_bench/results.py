"""One row for each measured model: its schema, and the JSONL file that rows are appended to."""

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
from android_bench.bundle_info import BundleInfo
from android_bench.measurement import (
    DEFAULT_DELEGATE,
    Counted,
    Machine,
    OperatorCount,
    OperatorTime,
    Options,
)
from shufflelite import config, limited, lock
from shufflelite.atomic import check_folder, named
from shufflelite.errors import InputError
from shufflelite.versions import version

SCHEMA = 2  # raise it when a field changes its meaning or is removed
_APPENDING = threading.Lock()
_OTHER_FILE = "choose another file"
_START = b'{"schema": '  # of each row


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
    network: BundleInfo | None  # None: `convert` did not write the file

    median_ms: float | None  # None, like the next three, on an emulated core: it has no times
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

    peak_memory_mb: float | None  # growth of the peak since just before loading, in 2**20 bytes
    process_peak_mb: float | None  # the peak itself, with the runtime and Python
    delegate_partitions: int | None
    undelegated_operators: Mapping[str, int] | None
    profile: Sequence[OperatorTime | OperatorCount]
    notes: Sequence[str]

    target: str
    runtime: str
    runtime_version: str | None
    threads: int
    delegate: str = DEFAULT_DELEGATE  # as in Facts: the one that took operators
    delegate_asked: str = DEFAULT_DELEGATE  # requested
    rounds: int  # completed; a time budget may have ended them early
    round_ms: Sequence[float] = ()  # median of each; empty on an emulated core, and in old rows
    runs: int  # timed inferences in each round
    warmup: int
    seed: int

    cpu: str
    instruction_set: str | None = None  # as in Machine; None also in rows before 2026-12
    fingerprint: str | None  # of a device
    cores: Sequence[int]  # that the models were pinned to; empty: all
    temperature_before_c: float | None
    temperature_after_c: float | None
    governor: str | None
    load_average_before: float | None
    load_average_after: float | None
    shufflelite_version: str | None  # None: not installed
    python_version: str
    command: str

    def __post_init__(self) -> None:
        if self.instructions is None and self.median_ms is None:
            raise InputError("expected 'instructions' or 'median_ms', got neither.")


@dataclass(frozen=True)
class Environment:
    """The device and the runtime of rows; rows of the same environment are comparable.

    A device is identified by its fingerprint, an emulated core by its name: its fingerprint changes
    with the runtime, and a runtime that became slower must be reported.
    """

    kind: str  # of target
    device: str
    cores: tuple[int, ...]
    runtime: str
    threads: int
    delegate: str  # as requested: one that stopped taking operators must be reported too

    def __str__(self) -> str:
        device = self.device if self.kind == "emulated" else f"{self.kind} ({self.device})"
        cores = f", cores {' '.join(map(str, self.cores))}" if self.cores else ""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{device}{cores}, {self.runtime}, {threads}, delegate {self.delegate}"


def record(
    run: measure.InterleavedRun,
    *,
    plan: measure.Plan,
    target: str,
    options: Options,
    command: str,
    out: Path,
) -> list[Row]:
    """Appends a row for each measured model to `out`; ratios are to the first of them."""
    new = [
        Row(
            schema=SCHEMA,
            date_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            model=one.model.name,
            path=str(one.model.path),
            size_bytes=one.model.size_bytes,
            sha256=one.model.sha256,
            operators=one.model.operators,
            network=bundle_info.read(one.model.path),
            **_cost(one.rounds),
            **vars(measure.ratio(one.rounds, run.measured[0].rounds)),
            ratio_to=run.measured[0].model.name,
            **vars(one.facts)
            | {"notes": [*one.facts.notes, *one.model.notes(options.requested_delegate)]},
            target=target,
            runtime=options.runtime,
            threads=options.threads,
            delegate_asked=options.requested_delegate,
            rounds=len(one.rounds),
            round_ms=measure.medians_ms(one.rounds),
            runs=plan.runs,
            warmup=plan.warmup,
            seed=plan.seed,
            cpu=run.before.cpu,
            instruction_set=run.before.instruction_set,
            fingerprint=run.before.fingerprint,
            cores=run.before.cores,
            temperature_before_c=run.before.temperature_c,
            temperature_after_c=run.after.temperature_c,
            governor=run.before.governor,
            load_average_before=run.before.load_average,
            load_average_after=run.after.load_average,
            shufflelite_version=version("shufflelite"),
            python_version=platform.python_version(),
            command=command,
        )
        for one in run.measured
    ]
    if new:
        append(out, new)
    return new


def _cost(rounds: Sequence[Any]) -> dict[str, Any]:
    if isinstance(rounds[0], Counted):
        no_times = dict.fromkeys(field.name for field in dataclasses.fields(measure.Latency))
        return {**no_times, "instructions": measure.instructions(rounds)}
    return {**vars(measure.latency(rounds)), "instructions": None}


def rows_before(out: Path) -> list[Row]:
    """Reads the rows of a file that more will be appended to; makes its folder.

    Raises:
      InputError: The file cannot be written, or is not a file of rows.
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
    """Appends rows, and removes an incomplete last row that a killed run left.

    The rows of one call stay together when several threads or processes append.

    Raises:
      OSError: The disk is full; the file is unchanged.
    """
    lines = [json.dumps(dataclasses.asdict(row)).encode() + b"\n" for row in new]
    with _APPENDING, named(path), path.open("a+b", buffering=0) as file:
        lock.lock_file(file)
        end = file.seek(0, os.SEEK_END)
        last = _last_line(file) if end else b""
        if last and not _is_cut(last):
            lines.insert(0, b"\n")
        elif last:
            end -= len(last)
            file.truncate(end)
        unwritten = b"".join(lines)
        try:
            while unwritten:
                unwritten = unwritten[file.write(unwritten) :]
        except OSError:
            with contextlib.suppress(OSError):  # a device, not a file
                file.truncate(end)
            raise


def read(path: Path) -> list[Row]:
    """Reads all rows of a file, except an incomplete last row that a killed run left.

    Raises:
      InputError: Any other line is not a row.
    """
    try:
        lines = limited.read_text(path, limited.TABLE_BYTES).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not UTF-8")
        raise InputError(
            f"{path}: expected rows of an earlier run ({reason}); {_OTHER_FILE}"
        ) from error
    return [
        _row(line, location=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
        if number < len(lines) or not _is_cut(line.encode())
    ]


def _row(line: str, *, location: str) -> Row:
    start = repr(line[:40])
    try:
        fields = config.parse_json(line)
    except InputError as error:
        damaged = f"a damaged one, {start}; delete the line"
        got = damaged if line.startswith(_START.decode()) else f"{start}; {_OTHER_FILE}"
        raise InputError(f"{location}: expected a row of results, got {got}") from error
    schema = fields.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise InputError(
            f'{location}: expected a row with "schema": {SCHEMA}, got {start}; {_OTHER_FILE}'
        )
    if fields.get("delegate_asked") is None:  # before 2026-11-23 `delegate` was the requested one
        requested = fields.get("delegate", DEFAULT_DELEGATE)
        in_use = "none" if fields.get("delegate_partitions") == 0 else requested
        fields = {**fields, "delegate": in_use, "delegate_asked": requested}
    try:
        return config.build(fields, Row, origin=location)
    except InputError as error:
        message = str(error).removesuffix(".")
        raise InputError(f"{message}; delete the line, or {_OTHER_FILE}") from error


def _last_line(file: BinaryIO) -> bytes:
    """Returns what follows the last newline."""
    file.seek(-1, os.SEEK_END)
    if file.read() == b"\n":
        return b""
    file.seek(0)
    return file.read().rpartition(b"\n")[2]


def _is_cut(line: bytes) -> bool:
    """Whether it is the beginning of a row, and no more."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.startswith(_START) or _START.startswith(line)
    return False


def device(row: Row) -> str:
    """The device, for people: a phone by its fingerprint, everything else by its CPU."""
    is_phone = row.target.startswith("adb")
    return f"{row.fingerprint or row.cpu if is_phone else row.cpu}, {instruction_set(row)}"


def instruction_set(row: Row) -> str:
    """The instruction set, for people."""
    return row.instruction_set or "unknown instruction set"


def environment(row: Row) -> Environment:
    """The environment of a row."""
    options = Options(runtime=row.runtime, threads=row.threads, delegate=row.delegate_asked)
    return expected_environment(row.target, row, options)


def expected_environment(target: str, machine: Machine | Row, options: Options) -> Environment:
    """The environment that rows will have once they are measured."""
    kind = target.partition(":")[0]
    device = target if kind == "emulated" else (machine.fingerprint or machine.cpu)
    runtime, threads = options.runtime, options.threads
    return Environment(
        kind, device, tuple(machine.cores), runtime, threads, options.requested_delegate
    )


def latency_ms(row: Row, rows: Sequence[Row]) -> float:
    """The median of the reference among `rows`, times the ratio to it.

    This cancels the machine's drift between the batches of a sweep.  Without the reference in
    `rows` it is the row's own median.
    """
    reference = next((one for one in rows if one.model == row.ratio_to), row)
    assert reference.median_ms is not None
    return reference.median_ms * row.ratio / reference.ratio


def total_instructions(row: Row) -> int:
    """Instructions of one inference over all classes, for a row that has them."""
    assert row.instructions is not None
    return sum(row.instructions.values())


def costs_by_type(row: Row) -> dict[str, tuple[int, float]]:
    """Calls and cost of each operator type in the profile, the most expensive type first."""
    costs: dict[str, tuple[int, float]] = {}
    for operator in row.profile:
        calls, cost = costs.get(operator.type, (0, 0.0))
        costs[operator.type] = (calls + operator.calls, cost + operator_cost(operator))
    return dict(sorted(costs.items(), key=lambda item: -item[1][1]))


def operator_cost(operator: OperatorTime | OperatorCount) -> float:
    """Milliseconds, or instructions on an emulated core."""
    return operator.ms if isinstance(operator, OperatorTime) else operator.instructions


def references(rows: Sequence[Row]) -> list[Row | None]:
    """For each row the one that its ratio is to: the first row of its run, written before it.

    None where the file lacks it.
    """
    matches: list[Row | None] = []
    last: dict[tuple[Environment, str], Row] = {}
    for row in rows:
        if row.model == row.ratio_to:
            last[environment(row), row.model] = row
        matches.append(last.get((environment(row), row.ratio_to)))
    return matches
