"""Our int8 files against those of other converters and runtimes, of the same networks.

python benchmarks/peers.py --cache build/peers --target emulated:a53 --target emulated:a76 \
    --target emulated:i8mm --target host

Each rival gets a Python environment of its own in --cache (several GB; pip's settings choose the
build of torch), where the files are also kept and reused.  Weights are random and batch norms
have the statistics of noise: costs are true, accuracies are not measured.  All networks pad as
PyTorch does.  Emulated counts are exact on a busy machine; the host needs a quiet one.
"""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from android_bench import measure, model_file, targets
from android_bench.emulated import cores, process, setup
from android_bench.measurement import Counted, Facts, Machine, Options, Plan, Round, TargetError
from convert.settings import Precision, Quantization
from keras_models import registry
from shufflelite.progress import Progress

flags.DEFINE_string("cache", None, "Folder of the environments and files.", required=True)
flags.DEFINE_multi_string("target", ["host"], "host or emulated:CORE.")
flags.DEFINE_integer("rounds", 20, "Rounds on the host.")
flags.DEFINE_multi_string("network", [], "Networks; default: all three.")

PROJECT = Path(__file__).resolve().parents[1]
RIVALS = PROJECT / "benchmarks" / "rivals"
NETWORKS: Mapping[str, tuple[str, dict[str, Any]]] = {  # of `keras_models`, as in rivals/networks
    "shufflenet_v2": ("ShuffleNet V2 1.0x", {}),
    "shufflenet_v1": ("ShuffleNet V1 1x g=3", {"groups": 3}),
    "mobilenet_v2": ("MobileNet V2 1.0", {"bn_epsilon": 1e-5}),
}
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("torch==2.13.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
    "onnxruntime": ("torch==2.13.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
    "mnn": ("MNN==3.6.1",),
    "litert_torch": ("torch==2.13.0", "litert-torch==0.10.0", "ai-edge-quantizer==0.10.0"),
    "onnx2tf": ("onnx2tf==1.29.24",),
}
ON_ARM = {"mnn": "MNN==3.6.1", "onnxruntime": "onnxruntime==1.32.0"}  # the runtimes in the guest
LITERT = "litert"


@dataclass(frozen=True)
class Contender:
    """A file of each network and how it runs."""

    name: str
    file: str  # its name after the network's
    maker: str  # ours, or a converter of rivals/convert.py
    runtime: str = LITERT  # or an environment
    precision: str = "normal"  # of MNN
    counted: bool = True  # False: timed on the host only; counts do not compare precisions


CONTENDERS = (
    Contender("ours, int8", "_lowered.tflite", "lowered"),
    Contender("ours, float32", "_float.tflite", "float32", counted=False),
    Contender("`--lowering direct`, int8", "_direct.tflite", "direct"),
    Contender("TFLite's converter, int8", "_tflite.tflite", "tflite"),
    Contender("onnx2tf, int8", "_onnx2tf.tflite", "onnx2tf"),
    Contender("litert-torch and ai-edge-quantizer, int8", "_litert_torch.tflite", "litert_torch"),
    Contender("MNN, int8", "_int8.mnn", "mnn", "mnn"),
    Contender('MNN, precision "low" (fp16 where the core has it)', ".mnn", "mnn", "mnn", "low"),
    Contender("ONNX Runtime, int8", "_int8.onnx", "onnxruntime", "onnxruntime"),
    Contender("ONNX Runtime, float32", ".onnx", "onnx", "onnxruntime", counted=False),
)


def main(argv: list[str]) -> None:
    """Prints a Markdown table of each network, one row for each contender."""
    values = flags.FLAGS
    names = values.network or list(NETWORKS)
    files = {name: _files(name) for name in names}
    for name, by_contender in files.items():
        columns = dict(_column(target, by_contender) for target in values.target)
        print(f"\n{NETWORKS[name][0]}:\n\n| | {' | '.join(columns)} | kB |")
        print(f"|---|{'---:|' * (len(columns) + 1)}")
        for contender, path in by_contender.items():
            cells = [column.get(contender.name, "-") for column in columns.values()]
            size = path.stat().st_size / 1000
            print(f"| {contender.name} | {' | '.join(cells)} | {size:.0f} |", flush=True)


def _files(name: str) -> dict[Contender, Path]:
    """The files of a network that could be made, converted unless they exist."""
    folder = Path(flags.FLAGS.cache).resolve() / "files"
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    _by_rival("onnx", name, folder, folder / f"{name}.onnx")
    for contender in CONTENDERS:
        path = folder / f"{name}{contender.file}"
        try:
            if contender.maker in OURS:
                if not path.exists():
                    path.write_bytes(OURS[contender.maker](_network(name)))
            else:
                _by_rival(contender.maker, name, folder, path)
            files[contender] = path
        except TargetError as error:
            print(f"{contender.name}, {name}: {error}", file=sys.stderr)
    return files


def _network(name: str) -> Any:
    from keras_models.checkpoints.random_weights import randomize

    model = registry.create(name, padding="symmetric", **NETWORKS[name][1])
    randomize(model, seed=0)
    return model


def _lowered(model: Any, *, generic: bool = True, precision: Precision = Precision.INT8) -> bytes:
    from convert.autotune import stand_in
    from convert.lowering import lower
    from convert.lowering.options import GENERIC

    settings = Quantization(precision=precision)
    options = GENERIC if generic else None
    return stand_in(lower(model, integer=precision.needs_inputs, options=options), settings)


def _by_tflite(model: Any) -> bytes:
    """TFLite's converter, as its guide uses it."""
    import tensorflow as tf

    def inputs() -> Any:
        rng = np.random.default_rng(0)
        for _ in range(16):
            yield [rng.uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)]

    function = tf.function(lambda image: model(image, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec((1, 224, 224, 3), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = inputs
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


OURS: Mapping[str, Callable[[Any], bytes]] = {
    "lowered": _lowered,
    "float32": lambda model: _lowered(model, precision=Precision.FLOAT32),
    "direct": lambda model: _lowered(model, generic=False),
    "tflite": _by_tflite,
}


def _by_rival(maker: str, name: str, folder: Path, path: Path) -> None:
    """Makes a file in the maker's environment, unless it exists or failed before."""
    if path.exists():
        return
    log_path, failed = (folder / f"{name}_{maker}.{end}" for end in ("log", "failed"))
    if failed.exists():
        raise TargetError(f"failed before: see {failed}, and delete it to try again")
    print(f"{maker}: {name}", file=sys.stderr)
    command = [str(_python(maker)), str(RIVALS / "convert.py"), maker, name, str(folder)]
    with log_path.open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, cwd=folder)
    if done.returncode:
        log_path.rename(failed)
        raise TargetError(f"exited with {done.returncode}: see {failed}")


def _python(environment: str) -> Path:
    """The Python of an environment, which is made if it is missing."""
    requirements = ENVIRONMENTS[environment]
    # Rivals with the same packages share them.
    first = next(name for name, same in ENVIRONMENTS.items() if same == requirements)
    folder = Path(flags.FLAGS.cache).resolve() / "environments" / first
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", *requirements]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (folder / "complete").touch()
    return python


def _arm_packages(runtime: str) -> Path:
    """The runtime's packages for the emulated guest, downloaded if they are missing."""
    folder = Path(flags.FLAGS.cache).resolve() / "arm" / runtime
    if not folder.exists():
        downloads = folder.with_suffix(".wheels")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary=:all:", "--python-version", "311", "--implementation", "cp"),
                *(f"--platform={name}_aarch64" for name in setup.PLATFORMS),
                *("--dest", str(downloads), ON_ARM[runtime]),
            ],
            check=True,
            stdout=sys.stderr,
        )
        (wheel,) = downloads.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


def _column(name: str, files: Mapping[Contender, Path]) -> tuple[str, dict[str, str]]:
    """The target, and the cost of each contender there with its ratio to the first one's."""
    inner = targets.open_target(name, options=Options())
    machine = inner.machine()
    heading = f"{name} ({machine.instruction_set})"
    target = PeersTarget(inner, name, {path: one for one, path in files.items()})
    if not name.startswith("emulated:"):
        run = _run(target, files, Plan(rounds=flags.FLAGS.rounds))
        first = run.measured[0].rounds
        return heading, {
            one.model.name: f"{measure.latency(one.rounds).median_ms:.3f} ms "
            f"({measure.ratio(one.rounds, first).ratio:.2f})"
            for one in run.measured
        }
    counts = {}
    for contender, path in files.items():
        if not contender.counted:
            continue
        count = _count(target, contender, path, machine.fingerprint)
        if count is not None:
            counts[contender.name] = count
    ours = counts[CONTENDERS[0].name]
    cells = {key: f"{count / 1e6:.2f} M ({count / ours:.2f})" for key, count in counts.items()}
    return heading, cells


def _count(
    target: "PeersTarget", contender: Contender, path: Path, fingerprint: str | None
) -> int | None:
    """Instructions of an inference: counted once for each file and kept in --cache."""
    key = [fingerprint, contender.runtime, ENVIRONMENTS.get(contender.runtime), contender.precision]
    digest = hashlib.sha256(json.dumps(key).encode() + path.read_bytes()).hexdigest()[:32]
    kept = Path(flags.FLAGS.cache).resolve() / "counts" / digest
    if not kept.exists():
        run = _run(target, {contender: path}, Plan(rounds=2, runs=1, warmup=1))
        if not run.measured:
            return None
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(str(sum(measure.instructions(run.measured[0].rounds).values())))
    return int(kept.read_text())


def _run(
    target: "PeersTarget", files: Mapping[Contender, Path], plan: Plan
) -> measure.InterleavedRun:
    models = [
        model_file.ModelFile(contender.name, path, path.stat().st_size, "", {})
        for contender, path in files.items()
    ]
    progress = Progress("peers")
    run = measure.run(target, models, plan=plan, progress=progress, title=target.name)
    for label, failure in run.failures.items():
        print(f"{label} on {target.name}: {failure}", file=sys.stderr)
    return run


@dataclass(frozen=True)
class PeersTarget:
    """A target that runs files of LiteRT itself, and the others by rivals/worker.py."""

    inner: Any
    name: str
    contenders: Mapping[Path, Contender]

    def machine(self) -> Machine:
        """The machine of the target."""
        return self.inner.machine()

    def load(self, path: Path, *, warmup: int, seed: int) -> Any:
        """Loads a model in the runtime of its contender."""
        contender = self.contenders[path]
        if contender.runtime == LITERT:
            return self.inner.load(path, warmup=warmup, seed=seed)
        core = self.name.partition(":")[2]
        start = EmulatedWorker if core else HostWorker
        session = start(contender.runtime, core)
        try:
            session.ask("load", path=str(path), precision=contender.precision, warmup=warmup)
        except BaseException:  # Ctrl-C too: end the worker
            session.close()
            raise
        return session

    def close(self) -> None:
        """Frees the target's resources."""
        self.inner.close()


class _Worker:
    def finish(self) -> Facts:
        """Returns no facts."""
        return Facts(*[None] * 4, "none", None, None, None)


class EmulatedWorker(_Worker):
    """rivals/worker.py in a guest."""

    def __init__(self, runtime: str, core: str) -> None:
        """Starts the guest."""
        self.guest = process.Guest(
            cores.find(core),
            setup.find().folder,
            module="benchmarks.rivals.worker",
            packages=_arm_packages(runtime),
        )
        self.ask, self.close = self.guest.ask, self.guest.close

    def measure(self, *, runs: int) -> Counted:
        """Counts instructions of one inference by class."""
        self.ask("measure", runs=runs)
        one, more = self.guest.counted
        return Counted({name: round((more[name] - one[name]) / runs) for name in more})


class HostWorker(_Worker):
    """rivals/worker.py on this machine."""

    def __init__(self, runtime: str, core: str) -> None:
        """Starts the process."""
        self.process = subprocess.Popen(
            [str(_python(runtime)), "-m", "benchmarks.rivals.worker", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Sends a request and returns the answer."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps({"do": verb, **arguments}), file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("{"):  # MNN prints other lines
                reply = json.loads(line)
                if "error" in reply:
                    raise TargetError(reply["error"])
                return reply["answer"]
        raise TargetError(f"the worker ended with {self.process.wait()}")

    def measure(self, *, runs: int) -> Round:
        """Times `runs` inferences."""
        times_ms = np.array(self.ask("time", runs=runs)) / 1e6
        p5, median, p95 = np.percentile(times_ms, (5, 50, 95))
        return Round(float(median), float(p5), float(p95), float(times_ms.min()), runs)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


if __name__ == "__main__":
    app.run(main)
