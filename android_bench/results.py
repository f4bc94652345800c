"""One row for each model measured: its schema, the JSONL file it is appended to, and the table."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from android_bench import measure, network
from android_bench.targets import DEFAULT_DELEGATE, Counted
from keras_models import cli
from keras_models.checkpoints.atomic import replacing
from keras_models.errors import InputError

SCHEMA = 2  # to be raised when a field changes its meaning or goes away
_APPENDING = threading.Lock()


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
    network: Mapping[str, Any] | None  # see network.Network; None: not made by `convert`

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
    profile: Sequence[Mapping[str, Any]]  # see targets.OperatorTime, OperatorCount
    notes: Sequence[str]

    target: str
    runtime: str
    runtime_version: str | None
    threads: int
    delegate: str = DEFAULT_DELEGATE  # that was asked for; rows of before 2026-11-22 do not tell
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
            delegate=delegate,
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
        for found in [network.of(one.model.path)]
    ]


def version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cost(rounds: Sequence[Any]) -> dict[str, Any]:
    if isinstance(rounds[0], Counted):
        nothing = dict.fromkeys(field.name for field in dataclasses.fields(measure.Latency))
        return {**nothing, "instructions": measure.instructions(rounds)}
    return {**dataclasses.asdict(measure.latency(rounds)), "instructions": None}


def check_writable(path: Path) -> None:
    """Makes the folder; raises InputError now rather than after minutes of measuring."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out={path}: cannot make its folder: {error.strerror}") from error
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"--out={path}: expected a file that can be written")


def append(path: Path, new: Sequence[Row]) -> None:
    """Adds rows behind the others, each whole or cut off by a kill, never mixed with another.

    Rows added by several threads stay together call by call.
    """
    with _APPENDING, path.open("a+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":  # a killed run left half a row
                file.write(b"\n")
        for row in new:
            file.write(json.dumps(dataclasses.asdict(row)).encode() + b"\n")


def read(path: Path) -> list[Row]:
    """All rows of a file, without those that a killed run left half written."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not UTF-8")
        raise InputError(f"{path}: expected rows of an earlier run ({reason})") from error
    found = []
    for number, line in enumerate(lines, start=1):
        place = f"{path}:{number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            if line.startswith("{"):
                continue
            raise InputError(f"{place}: expected a row of results, got {line[:40]!r}") from error
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            raise InputError(f'{place}: expected a row with "schema": {SCHEMA}, got {line[:40]!r}')
        try:
            found.append(Row(**fields))
        except TypeError as error:
            raise InputError(f"{place}: not a row of schema {SCHEMA}: {error}") from error
    return found


def write(path: Path, data: bytes) -> None:
    """Writes a file of its own, as a picture or a table: whole, or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def device(row: Row) -> str:
    """What the models ran on, for people: a phone by its fingerprint, all else by its CPU."""
    is_phone = row.target.startswith("adb")
    return (row.fingerprint or row.cpu) if is_phone else row.cpu


def place(row: Row) -> tuple[Any, ...]:
    """Where a row was measured: rows of one place are comparable.

    A device is known by its fingerprint, an emulated core by its name: its fingerprint changes with
    the runtime, of which it shall be told that it became slower.
    """
    kind = row.target.partition(":")[0]
    where = row.target if kind == "emulated" else (row.fingerprint or row.cpu)
    return kind, where, tuple(row.cores), row.runtime, row.threads, row.delegate


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
    last: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if row.model == row.ratio_to:
            last[(*place(row), row.model)] = row
        found.append(last.get((*place(row), row.ratio_to)))
    return found


def print_table(shown: Sequence[Row], *, file: TextIO) -> None:
    """A table for people."""
    columns = {
        "median ms": [_number(row.median_ms, 3) for row in shown],
        "p95 ms": [_number(row.p95_ms, 3) for row in shown],
        "first ms": [_number(row.first_ms, 3) for row in shown],
        "init ms": [_number(row.init_ms, 1) for row in shown],
        "M instr": [
            "-" if (by := row.instructions) is None else f"{sum(by.values()) / 1e6:.2f}"
            for row in shown
        ],
        "ratio": [f"{row.ratio:.3f}" for row in shown],
        "p5-p95": [f"{row.ratio_p5:.3f}-{row.ratio_p95:.3f}" for row in shown],
        "peak MB": [_number(row.peak_memory_mb, 1) for row in shown],
        "size kB": [f"{row.size_bytes / 1000:.0f}" for row in shown],
        "ops": [str(sum(row.operators.values())) for row in shown],
        "parts": [_number(row.delegate_partitions, 0) for row in shown],
        "out": [
            "-" if (out := row.undelegated_operators) is None else str(sum(out.values()))
            for row in shown
        ],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {"-"}}
    names = [row.model for row in shown]
    cli.print_table(["model", *columns], zip(names, *columns.values(), strict=True), file=file)
    for note in dict.fromkeys(note for row in shown for note in row.notes):
        print(note, file=file)
    head = shown[0]
    print(
        f"{head.target}, {head.cpu}: {head.runtime} {head.runtime_version}, threads"
        f" {head.threads}, {head.rounds} rounds of {head.runs} runs. Read ratios: each is to"
        f" {head.ratio_to} within the same round, which the machine's noise reaches alike.",
        file=file,
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
