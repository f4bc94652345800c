"""Rows as a run would have written them."""

import dataclasses
from typing import Any

from android_bench.bundle_info import BundleInfo
from android_bench.results import Row


def network(name: str = "net", **changes: Any) -> BundleInfo:
    usual = BundleInfo(
        name=name,
        options={},
        resolution=224,
        num_classes=1000,
        precision="int8",
        params=1_000_000,
        multiply_adds=100_000_000,
        published_top1=None,
        top1=None,
    )
    return dataclasses.replace(usual, **changes)


def row(model: str = "net", **changes: Any) -> Row:
    """A row of the host; with `instructions`, of an emulated core."""
    counted = "instructions" in changes
    fields: dict[str, Any] = {
        "schema": 2,
        "date_utc": "2026-01-01T00:00:00+00:00",
        "model": model,
        "path": f"build/{model}/model.tflite",
        "size_bytes": 1_234_567,
        "sha256": f"sha256 of {model}",
        "operators": {"CONV_2D": 3, "ADD": 1},
        "network": network(),
        "median_ms": None if counted else 2.0,
        "p5_ms": None if counted else 1.9,
        "p95_ms": None if counted else 2.2,
        "min_ms": None if counted else 1.8,
        "instructions": None,
        "first_ms": None,
        "init_ms": None,
        "ratio": 1.0,
        "ratio_p5": changes.get("ratio", 1.0) * 0.98,
        "ratio_p95": changes.get("ratio", 1.0) * 1.02,
        "ratio_to": "base",
        "peak_memory_mb": None,
        "process_peak_mb": None,
        "delegate_partitions": 1,
        "undelegated_operators": {},
        "profile": [],
        "notes": [],
        "target": "emulated:a53" if counted else "host",
        "runtime": "litert",
        "runtime_version": "2.3.0",
        "threads": 1,
        "delegate": "xnnpack",
        "delegate_asked": "xnnpack",
        "rounds": 20,
        "runs": 10,
        "warmup": 5,
        "seed": 0,
        "cpu": "Some CPU",
        "fingerprint": None,
        "cores": [],
        "temperature_before_c": None,
        "temperature_after_c": None,
        "governor": None,
        "load_average_before": None,
        "load_average_after": None,
        "shufflelite_version": "0.1.0",
        "python_version": "3.11.0",
        "command": "python -m android_bench",
    }
    return Row(**{**fields, **changes})
