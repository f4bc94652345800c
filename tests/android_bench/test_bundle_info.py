"""What a foreign report.json says gets into rows only with the types that are read back."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from android_bench import bundle_info, results, tables
from tests.android_bench import rows

FOREIGN = Path(__file__).with_name("foreign_report.json")  # its `params` are "x"
VALUES: list[Any] = [
    *(float("nan"), float("inf"), 1e308, -1, 1 << 63, 10**400),
    *("x", "\ud800", "a\nb|\x1b[31m", None, True, [], [[1]], {}, {"a": [1]}),
]
PLACES = [
    ("settings", "model", "name"),
    ("settings", "model", "num_classes"),
    ("settings", "quantization", "precision"),
    ("options",),
    ("options", "width"),
    ("options", "new"),
    ("audit", "input", "shape", 1),
    ("params",),
    ("multiply_adds",),
    ("fidelity", "top1"),
]


def test_a_report_with_a_wrong_type_is_none(tmp_path: Path) -> None:
    shutil.copy(FOREIGN, tmp_path / "report.json")
    assert bundle_info.read(tmp_path / "model.tflite") is None


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_rows_with_foreign_reports_are_read_back(place: tuple[Any, ...], tmp_path: Path) -> None:
    report = json.loads(FOREIGN.read_text()) | {"params": 352_042}
    out = tmp_path / "rows.jsonl"
    for value in VALUES:
        changed = copy.deepcopy(report)
        table = changed
        for key in place[:-1]:
            table = table[key]
        table[place[-1]] = value
        (tmp_path / "report.json").write_text(json.dumps(changed))
        network = bundle_info.read(tmp_path / "model.tflite")
        results.append(out, [rows.row(network=network)])
        row = results.read(out)[-1]
        assert row.network == network
        assert tables.sweep_table([row], [])
