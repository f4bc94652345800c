"""Writes the corpus beside it anew: an output of each tool and version, and the truth of all.

After a change of a printer:

  python -m tests.android_bench.outputs.corpus
"""

import json
import random
from dataclasses import replace
from pathlib import Path

from tests.android_bench.outputs.printer import VERSIONS, random_run, text, truth
from tests.android_bench.outputs.profile_printer import csv, expected, profile_lines, random_profile


def corpus() -> dict[str, str]:
    """One output of each version with a profile, some profiles as CSV, and the truth of all."""
    files = {}
    truths = {}
    for number, (name, version) in enumerate(VERSIONS.items()):
        rng = random.Random(number)
        run = replace(
            random_run(rng),
            regular_us=[rng.randint(5000, 6000) for _ in range(50)],
            regular_loop=(50, 0, 150),
        )
        litert = version.profile in ("2.1.6", "2.2")
        runs = len(run.warmup_us) + len(run.regular_us)
        profile = random_profile(rng, runs=runs if litert else None)
        shown = [] if version.logcat else profile_lines(profile, version)
        files[f"{name}.txt"] = text(run, version, profile=shown)
        truths[f"{name}.txt"] = {
            **truth(run, version),
            "delegate": [run.delegate, run.outcome, run.kernels],
            "profile": expected(profile.operators, profile.runs) if shown else None,
        }
        if name in ("tf2.8", "litert1.1"):
            files[f"{name}.csv"] = csv(profile, version)
            truths[f"{name}.csv"] = {"profile": expected(profile.operators, profile.runs)}
    files["truth.json"] = json.dumps(truths, indent=1) + "\n"
    return files


if __name__ == "__main__":
    for name, content in corpus().items():
        Path(__file__).with_name(name).write_bytes(content.encode())
