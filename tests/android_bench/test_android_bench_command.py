"""The command as its users start it: flags, exit codes, tables and JSON."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from android_bench import results, sweep
from tests.android_bench import rows as made
from tests.forkserver import LIGHT, run

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "android_bench"]


def bench(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, words)]
    return run(command, modules=LIGHT, cwd=ROOT, capture_output=True, text=True)


def test_rows_hold_the_facts_of_files_and_run(toys: Mapping[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "rows.jsonl"
    files = [toys["float"], toys["int8"], toys["float"]]
    ran = bench("--models", *files, "--rounds=3", "--runs=4", "--threads=2", "--json", "--out", out)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(ran.stdout)
    assert rows == [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["model"] for row in rows] == ["float", "int8", "float#2"]
    for row, file in zip(rows, files, strict=True):
        data = file.read_bytes()
        assert row["schema"] == 2
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["size_bytes"] == len(data)
        assert row["operators"]["CONV_2D"] == 2
        assert (row["rounds"], row["runs"], row["threads"]) == (3, 4, 2)
        assert 0 < row["min_ms"] <= row["p5_ms"] <= row["median_ms"] <= row["p95_ms"]
        assert row["ratio_p5"] <= row["ratio"] <= row["ratio_p95"]
        assert row["ratio_to"] == "float"
        assert row["command"].startswith("python -m android_bench --models /")
    assert rows[0]["ratio"] == 1
    assert all(line.startswith("android_bench: ") for line in ran.stderr.splitlines())


def test_a_model_that_fails_is_one_line_and_the_others_are_measured(
    toys: Mapping[str, Path], unrunnable: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    ran = bench("--models", unrunnable, toys["int8"], "--rounds=2", "--out", out)
    assert ran.returncode == 1
    assert ran.stderr.count("android_bench: unrunnable: ") == 1
    assert "Traceback" not in ran.stderr
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (row["model"], row["ratio"], row["ratio_to"]) == ("int8", 1, "int8")
    assert ran.stdout.splitlines()[1].startswith("int8 ")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "expected either --models with .tflite files or --sweep with one file"),
        (["--models", "a.tflite", "--sweep=b.toml"], 2, "expected either --models"),
        *(
            (["--models", "a.tflite", f"--{flag}"], 2, f"--{flag.split('=')[0]} belongs to --")
            for flag in ("set=measure.runs=1", "pictures=x", "cache=x", "max_regression=5%")
        ),
        (["--models", "a.tflite", "--out="], 2, "--out: got an empty word"),
        (["--models", ""], 2, "--models: got an empty word"),
        (
            ["--models", "a.tflite", "--max_seconds=nan"],
            2,
            "Expected --max_seconds to be a number",
        ),
        (["--models", "a.tflite", "--rounds=0"], 2, "Expected --rounds to be at least 1, got 0"),
        (["--models", "a.tflite", "--rounds=x"], 2, "flag --rounds=x: expected a whole number"),
        (["--models", "a.tflite", "--max_seconds=x"], 2, "--max_seconds=x: expected a number"),
        (
            ["--sweep=configs/paper_claims.toml", "--runs=0"],
            2,
            "Expected --runs to be at least 1",
        ),
        (["--sweep=configs/paper_claims.toml", "--cache=/proc/x"], 1, "--cache: /proc/x cannot"),
        (["--sweep=configs/paper_claims.toml", "--pictures=/proc"], 1, "--pictures: /proc cannot"),
        (
            ["--sweep=configs/paper_claims.toml", "--set=measure.batch=1"],
            1,
            "expected 'batch' to be at least 2, got 1",
        ),
        (["setup"], 2, "expected setup emulated, got setup"),
        (["setup", "phone"], 2, "expected setup emulated, got setup phone"),
        (["--sweep=nowhere.toml"], 1, "nowhere.toml: expected a TOML file"),
        (
            ["--models", "a.tflite", "--baseline=nowhere.jsonl", "--max_regression=5"],
            2,
            "as a percentage such as 5%, got '5'",
        ),
        (
            ["--models", "a.tflite", "--baseline=nowhere.jsonl"],
            1,
            "nowhere.jsonl: expected rows of an earlier run",
        ),
        (["--models", "a.tflite", "--target=emulated:a99"], 2, "Unknown emulated core 'a99'"),
        (
            ["--models", "a.tflite", "--target=emulated:a53", "--threads=2"],
            2,
            "The target emulated:a53 has no --threads: leave it out",
        ),
        (
            ["--models", "a.tflite", "--cores=big"],
            2,
            "The target host has no --cores: leave it out",
        ),
        (["--models", "a.tflite", "--threads=0"], 2, "threads"),
        (["--models", "a.tflite", "--runtime=torch"], 2, "runtime"),
        (["--models", "a.tflite", "--round=3"], 2, "round"),
        (["--models", "a.tflite", "--target=hots"], 2, "Did you mean 'host'?"),
        (["--models", "nowhere.tflite"], 1, "nowhere.tflite: expected a .tflite file"),
    ],
)
def test_mistakes_are_one_line(words: list[str], code: int, message: str) -> None:
    ran = bench(*words)
    assert (ran.returncode, ran.stdout) == (code, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("android_bench: ")
    assert message in line


def test_a_profile_is_in_the_rows_and_in_tables_by_type_and_by_operator(
    toys: Mapping[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    ran = bench("--models", toys["int8"], "--rounds=2", "--runs=2", "--profile", "--out", out)
    assert ran.returncode == 0, ran.stderr
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["type"] for one in row["profile"]] == [
        *("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED")
    ]
    assert all(one["ms"] >= 0 and one["delegated"] for one in row["profile"])
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in ran.stdout.splitlines()]
    by_type = {line[0]: line[1] for line in cells if len(line) == 4}
    assert by_type["CONV_2D"] == "2"
    assert by_type["sum"] == "5"
    assert f"{row['median_ms']:.4f}" in next(c for c in cells if c[:1] == ["all at once"])
    assert len([line for line in cells if len(line) == 4]) == 2 + (4 + 2)
    assert len([line for line in cells if len(line) == 5]) == 2 + 5


def test_what_got_slower_than_the_baseline_leaves_with_3(
    toys: Mapping[str, Path], tmp_path: Path
) -> None:
    out, baseline = tmp_path / "rows.jsonl", tmp_path / "baseline.jsonl"
    words = ["--models", toys["int8"], toys["heavy"], "--rounds=4", "--runs=4", "--out", out]
    assert bench(*words).returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for factor, code in ((1, 0), (1e6, 0), (1e-6, 3)):  # far beyond what a busy machine does
        changed = [
            {**row, "sha256": "other", "round_ms": [ms * factor for ms in row["round_ms"]]}
            for row in rows[1:]
        ]
        baseline.write_text("".join(json.dumps(row) + "\n" for row in [rows[0], *changed]))
        ran = bench(*words, "--baseline", baseline, "--max_regression=100000%")
        assert ran.returncode == code, ran.stderr
        slower = [line for line in ran.stderr.splitlines() if "slower: heavy on host: " in line]
        assert len(slower) == (code == 3)


def test_a_baseline_that_nothing_can_be_compared_with_is_refused_before_measuring(
    toys: Mapping[str, Path], tmp_path: Path
) -> None:
    out, baseline = tmp_path / "rows.jsonl", tmp_path / "baseline.jsonl"
    results.append(baseline, [made.row("int8", cpu="Another CPU")])
    words = ["--models", toys["int8"], "--out", out, "--baseline", baseline]
    for text, told in (
        (baseline.read_text(), "expected rows of the same device"),
        ("", "expected rows of an earlier run, got none"),
        ('{"schema": 2, "da', "expected rows of an earlier run, got none"),
    ):
        baseline.write_text(text)
        ran = bench(*words)
        assert (ran.returncode, ran.stdout) == (1, "")
        (line,) = ran.stderr.splitlines()
        assert line.startswith(f"android_bench: --baseline={baseline}: {told}")
        assert not out.exists()


def test_no_file_that_holds_something_else_is_written_to(toys: Mapping[str, Path]) -> None:
    before = toys["int8"].read_bytes()
    ran = bench("--models", toys["int8"], "--out", toys["int8"])
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"android_bench: --out: {toys['int8']}: expected rows")
    assert toys["int8"].read_bytes() == before


def test_flags_go_over_the_settings_of_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[[grid]]\nmodel = "mobilenet_v1"\n[measure]\nrounds = 5\nruns = 6\n')
    code = (
        "import sys\n"
        "from absl import flags\n"
        "from android_bench import __main__ as command, sweep\n"
        "from shufflelite.flags import define\n"
        "define(*command.SETTINGS)\n"
        "flags.FLAGS(['x', '--runs=7', '--max_seconds=2.5'])\n"
        "print(sweep.load(sys.argv[1], (), command.measure_flags()).measure)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=True,
    )
    assert ran.stdout.strip() == repr(sweep.MeasureSettings(rounds=5, runs=7, max_seconds=2.5))


def test_help_imports_neither_tensorflow_nor_a_runtime() -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "android_bench", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ran.returncode == 0
    assert "python -m android_bench --models" in ran.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in ran.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not imported & {"tensorflow", "tf_keras", "ai_edge_litert", "tflite_runtime", "numpy"}


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_ended_run_leaves_no_process_and_no_row(
    toys: Mapping[str, Path], tmp_path: Path, how: signal.Signals, code: int
) -> None:
    out = tmp_path / "rows.jsonl"
    files = [str(toys["float"]), str(toys["int8"])]
    command = [*COMMAND, "--models", *files, "--runs=1000000000", "--out", str(out)]
    parent = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and so their children, are born deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert parent.stderr is not None
    try:
        while "measuring" not in parent.stderr.readline():
            assert parent.poll() is None
        workers = children(parent.pid)
        assert len(workers) == 2
        parent.send_signal(how)
        assert parent.wait(timeout=1200) == code
    finally:
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + 60
    while any(map(runs, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not out.exists()


def state_and_parent(pid: int) -> tuple[str, int]:
    text = Path(f"/proc/{pid}/stat").read_text()
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def children(parent: int) -> list[int]:
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):  # gone since
            if state_and_parent(pid)[1] == parent:
                found.append(pid)
    return found


def runs(pid: int) -> bool:
    try:
        return state_and_parent(pid)[0] != "Z"  # dead, and not yet buried by its adoptive parent
    except OSError:
        return False
