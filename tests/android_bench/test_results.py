import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from android_bench import results
from keras_models.errors import InputError

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
    profile=[],
    notes=["cores 4-7"],
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
    cores=[],
    temperature_before_c=None,
    temperature_after_c=None,
    governor=None,
    load_average_before=0.5,
    load_average_after=1.25,
    shufflelite_version=None,
    python_version="3.11.0",
    command="python -m android_bench --models build/net/model.tflite",
)


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
    assert fields.pop("delegate") == "gpu"
    path.write_text(json.dumps(fields) + "\n")
    assert results.read(path) == [other(delegate="xnnpack")]


def test_a_profile_is_summed_by_type_whatever_its_unit() -> None:
    profile = [
        {"name": "a", "type": "ADD", "calls": 2},
        {"name": "b", "type": "CONV_2D", "calls": 1},
        {"name": "c", "type": "ADD", "calls": 1},
    ]
    for unit in ("ms", "instructions"):
        costs = ({unit: cost} for cost in (1, 8, 4))
        row = other(profile=[{**one, **cost} for one, cost in zip(profile, costs, strict=True)])
        assert list(results.by_type(row).items()) == [("CONV_2D", (1, 8.0)), ("ADD", (3, 5.0))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a, csv, file", r"rows\.jsonl:2: expected a row of results, got 'a, csv, file'"),
        ("[1, 2]", r'rows\.jsonl:2: expected a row with "schema": 2'),
        ('{"schema": 1}', r'rows\.jsonl:2: expected a row with "schema": 2'),
        ('{"schema": 2, "colour": 3}', r"rows\.jsonl:2: not a row of schema 2"),
    ],
)
def test_what_is_no_row_is_refused_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    results.append(path, [ROW])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=message):
        results.read(path)


def test_an_output_that_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    results.check_writable(tmp_path / "new" / "rows.jsonl")
    with pytest.raises(InputError, match="expected a file that can be written"):
        results.check_writable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make its folder"):
        results.check_writable(tmp_path / "file" / "rows.jsonl")


def test_the_table_outside_a_terminal_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    results.print_table([ROW, other(model="n" * 200)], file=sys.stdout)
    heading, row, long, note, caption = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["model", "median", "ms"]
    assert row.split() == [
        *("net", "2.500", "3.125", "9.750", "12.5", "1.500", "1.438-1.562"),
        *("1235", "4", "2", "1"),
    ]
    assert note == "cores 4-7"
    assert long.startswith("n" * 200)
    assert "Read ratios" in caption
