"""Rows and their JSONL file: written, read again, damaged."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from android_bench import results, tables
from android_bench.measurement import OperatorCount, OperatorTime
from shufflelite import atomic, lock
from shufflelite.errors import InputError
from tests.android_bench.rows import network

ROW = results.Row(
    schema=2,
    date_utc="2026-01-01T00:00:00+00:00",
    model="net",
    path="build/net/model.tflite",
    size_bytes=1_234_567,
    sha256="ab" * 32,
    operators={"CONV_2D": 3, "ADD": 1},
    network=None,
    median_ms=2.5,
    p5_ms=2.25,
    p95_ms=3.125,
    min_ms=2.125,
    instructions=None,
    first_ms=9.75,
    init_ms=12.5,
    ratio=1.5,
    ratio_p5=1.4375,
    ratio_p95=1.5625,
    ratio_to="base",
    peak_memory_mb=None,
    process_peak_mb=None,
    delegate_partitions=2,
    undelegated_operators={"ADD": 1},
    profile=(),
    notes=("cores 4-7",),
    target="host",
    runtime="litert",
    runtime_version="2.3.0",
    threads=1,
    rounds=20,
    runs=10,
    warmup=5,
    seed=0,
    cpu="Some CPU",
    fingerprint=None,
    cores=(),
    temperature_before_c=None,
    temperature_after_c=None,
    governor=None,
    load_average_before=0.5,
    load_average_after=1.25,
    shufflelite_version=None,
    python_version="3.11.0",
    command="python -m android_bench --models build/net/model.tflite",
)

APPENDER = """
import sys
from pathlib import Path
from android_bench import results
from tests.android_bench.rows import row
print("appends", flush=True)
results.append(Path(sys.argv[1]), [row("later")])
"""


def other(**changes: Any) -> results.Row:
    return dataclasses.replace(ROW, **changes)


def test_rows_are_appended_one_to_a_line_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    results.append(path, [ROW])
    results.append(path, [other(model="b"), other(model="c")])
    assert [json.loads(line)["model"] for line in path.read_text().splitlines()] == [
        "net",
        "b",
        "c",
    ]
    assert results.read(path) == [ROW, other(model="b"), other(model="c")]


def test_a_row_cut_off_anywhere_by_a_kill_costs_no_other_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    results.append(path, [ROW])
    whole = path.read_bytes()
    for kept in range(1, len(whole) - 1, 37):
        path.write_bytes(whole + whole[:kept])
        assert results.read(path) == [ROW]
        results.append(path, [other(model="later")])
        assert results.read(path) == [ROW, other(model="later")]


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    results.append(path, [ROW])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    results.append(path, [other(model="later")])
    assert results.read(path) == [ROW, other(model="later")]


def test_rows_from_before_there_was_a_delegate_have_the_usual_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    results.append(path, [other(delegate="gpu")])
    fields = json.loads(path.read_text())
    del fields["delegate"], fields["delegate_asked"]
    path.write_text(json.dumps(fields) + "\n")
    assert results.read(path) == [other(delegate="xnnpack")]


def test_rows_from_before_instruction_sets_were_recorded_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    known = other(instruction_set="avx512-vnni")
    results.append(path, [known])
    assert results.read(path) == [known]
    assert results.device(known) == "Some CPU, avx512-vnni"
    fields = json.loads(path.read_text())
    del fields["instruction_set"]
    path.write_text(json.dumps(fields) + "\n")
    (old,) = results.read(path)
    assert old == dataclasses.replace(known, instruction_set=None)
    assert results.device(old) == "Some CPU, unknown instruction set"


@pytest.mark.parametrize(("partitions", "ran"), [(0, "none"), (1, "gpu"), (None, "gpu")])
def test_rows_that_told_what_was_asked_for_alone_tell_what_ran(
    tmp_path: Path, partitions: int | None, ran: str
) -> None:
    path = tmp_path / "rows.jsonl"
    fields = dataclasses.asdict(other(delegate="gpu", delegate_partitions=partitions))
    del fields["delegate_asked"]
    path.write_text(json.dumps(fields))
    (read,) = results.read(path)
    assert (read.delegate_asked, read.delegate) == ("gpu", ran)
    results.append(path, [read])
    assert results.read(path) == [read, read]


def test_a_profile_is_summed_by_type_whatever_its_unit() -> None:
    operators = [("a", "ADD", 1, 2), ("b", "CONV_2D", 8, 1), ("c", "ADD", 4, 1)]
    for kind in (OperatorTime, OperatorCount):
        row = other(profile=[kind(*operator, None) for operator in operators])
        by_type = results.costs_by_type(row)
        assert list(by_type.items()) == [("CONV_2D", (1, 8.0)), ("ADD", (3, 5.0))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a, csv, file", "expected a row of results, got 'a, csv, file'; choose another file"),
        ("[1, 2]", "expected a row of results, got '[1, 2]'; choose another file"),
        ('{"schema": 1}', 'expected a row with "schema": 2'),
        ('{"schema": 2.0}', 'expected a row with "schema": 2'),
        (
            '{"schema": 2}',
            "missing key 'date_utc'; delete the line, or choose another file",
        ),
        ('{"schema": 2, "model": "ne', 'got a damaged one, \'{"schema": 2, "model": "ne\'; delete'),
    ],
)
def test_what_is_no_row_is_refused_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    results.append(path, [ROW])
    with path.open("a") as file:
        file.write(f"{line}\n\n")
    with pytest.raises(InputError) as caught:
        results.read(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("ratio", "1.5", "expected 'ratio' to be a number, got '1.5'"),
        ("ratio", True, "expected 'ratio' to be a number, got True"),
        ("ratio", None, "expected 'ratio' to be a number, got None"),
        ("median_ms", float("nan"), "expected 'median_ms' to be a number, got nan"),
        ("rounds", 2.5, "expected 'rounds' to be an integer, got 2.5"),
        ("date_utc", 20260101, "expected 'date_utc' to be a string, got 20260101"),
        ("cores", ["4"], "expected 'cores' to be an integer, got '4'"),
        (
            "instructions",
            {"dot": "many"},
            "[instructions]: expected 'dot' to be an integer, got 'many'",
        ),
        ("network", {"name": "net"}, "[network]: missing key 'options'"),
        ("network", "net", "expected 'network' to be a table, got 'net'"),
        ("profile", [{"type": "ADD"}], "expected 'profile' to be a table, got {'type': 'ADD'}"),
        ("median_ms", None, "expected 'instructions' or 'median_ms', got neither"),
        ("delegate_partitions", "x" * 199, f"to be an integer, got '{'x' * 99};"),
        ("colour", 3, "unknown key 'colour'"),
    ],
)
def test_a_field_of_the_wrong_type_is_told(
    tmp_path: Path, field: str, value: object, problem: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**dataclasses.asdict(ROW), field: value}))
    with pytest.raises(InputError) as caught:
        results.read(path)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{path}:1")
    assert str(caught.value).endswith("; delete the line, or choose another file")


def test_every_kind_of_row_that_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    time = OperatorTime("conv", "CONV_2D", 1, 1, None)
    count = OperatorCount("conv", "CONV_2D", 9, 1, True)
    rows = [
        other(network=network(options={"width": 0.5}), profile=(time,)),
        other(instructions={"dot": 9}, median_ms=None, profile=(count,)),
        other(fingerprint="maker/phone", cores=(4, 5), temperature_before_c=31),
    ]
    results.append(path, rows)
    assert results.read(path) == rows


def test_another_process_waits_until_a_row_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = json.dumps(dataclasses.asdict(ROW))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", APPENDER, str(path)]
    with path.open("w") as file:
        lock.lock_file(file.fileno())
        file.write(line[:100])
        file.flush()
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"appends\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        file.write(line[100:] + "\n")
    process.communicate()
    assert process.returncode == 0
    assert [row.model for row in results.read(path)] == ["net", "later"]


def test_what_holds_no_rows_is_no_file_to_append_to(tmp_path: Path) -> None:
    assert results.rows_before(tmp_path / "new" / "rows.jsonl") == []
    assert not list((tmp_path / "new").iterdir())
    assert results.rows_before(Path(os.devnull)) == []
    path = tmp_path / "rows.jsonl"
    results.append(path, [ROW])
    assert results.rows_before(path) == [ROW]
    for data in (b"some text", b"{ my thesis", b"\x1c\0\0\0TFL3\xff", b'{"schema": 1}\n'):
        path.write_bytes(data)
        with pytest.raises(
            InputError, match=r"^--out: .*rows\.jsonl.*: expected .*; choose another"
        ):
            results.rows_before(path)
        assert path.read_bytes() == data


@pytest.mark.parametrize("path", ["/proc/rows.jsonl", "/proc/new/rows.jsonl", "/dev/full", "."])
def test_an_output_that_cannot_be_written_is_refused_early(path: str) -> None:
    with pytest.raises(InputError, match=f"^--out={path}: "):
        results.rows_before(Path(path))


def test_a_folder_that_cannot_be_written_in_is_told_with_its_flag(tmp_path: Path) -> None:
    atomic.check_folder(tmp_path / "a" / "b", flag="--cache")
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "new", Path("/proc")):
        with pytest.raises(InputError, match=f"^--cache: {folder} cannot be written in: "):
            atomic.check_folder(folder, flag="--cache")


def test_a_full_disk_is_told_with_the_file() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        results.append(Path("/dev/full"), [ROW])


def test_a_full_disk_leaves_no_half_row_and_no_half_picture(tmp_path: Path) -> None:
    path, picture = tmp_path / "rows.jsonl", tmp_path / "picture.png"
    results.append(path, [ROW])
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) * 3 // 2, before[1]))
        with pytest.raises(OSError, match="File too large") as of_row:
            results.append(path, [other(model="later")])
        with pytest.raises(OSError, match="File too large") as of_picture:
            atomic.write(picture, 2 * whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (of_row.value.filename, of_picture.value.filename) == (str(path), str(picture))
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0.00"),
        (0.001234, "0.00123"),
        (0.329, "0.329"),
        (2.5, "2.50"),
        (12.345, "12.3"),
        (123.45, "123"),
        (12345.6, "12346"),
    ],
)
def test_times_have_three_significant_digits(value: float | None, text: str) -> None:
    assert tables.milliseconds(value) == text


def test_a_latency_is_the_references_times_the_ratio() -> None:
    # The machine was half as fast in the second batch.
    base, net = other(model="base", median_ms=2.0, ratio=1.0), other(median_ms=12.0, ratio=3.0)
    assert results.latency_ms(net, [base, net]) == 6.0
    assert results.latency_ms(base, [base, net]) == 2.0
    assert results.latency_ms(net, [net]) == 12.0


def test_the_table_outside_a_terminal_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_run([ROW, other(model="n" * 200)], file=sys.stdout)
    heading, row, long, note, caption = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["model", "median", "ms"]
    assert row.split() == [
        *("net", "2.50", "3.12", "9.75", "12.5", "1.500", "1.438-1.562"),
        *("1235", "4", "2", "1"),
    ]
    assert note == "cores 4-7"
    assert long.startswith("n" * 200)
    assert "litert 2.3.0, delegate xnnpack, threads 1" in caption
    assert "Read the ratios" in caption


def test_the_guide_shows_the_columns_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    guide = Path(__file__).parents[2] / "docs" / "guides" / "compare_on_your_phone.md"
    (shown,) = (line for line in guide.read_text().splitlines() if line.startswith("model  "))
    tables.print_run([other(peak_memory_mb=1.5)], file=sys.stdout)
    heading = capsys.readouterr().out.splitlines()[0]
    assert shown.split() == heading.split()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 100_000, "expected a row of results, got a damaged one"),
        ("9" * 400, "expected a row of results, got a damaged one"),
        (f'1, "{"x" * 5000}": 1', "unknown key 'xxx"),
    ],
    ids=["deep", "huge", "long"],
)
def test_what_is_of_any_length_is_one_short_line(tmp_path: Path, value: str, message: str) -> None:
    line = json.dumps(dataclasses.asdict(ROW) | {"ratio": 0.125})
    path = tmp_path / "rows.jsonl"
    path.write_text(line.replace("0.125", value) + "\n")
    with pytest.raises(InputError) as caught:
        results.read(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 500
