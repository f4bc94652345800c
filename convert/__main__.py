"""Converts a network to a TFLite file, and measures the file against the float network.

Writes a bundle, <out>/<model>_<variant>_<resolution>_<precision>/, that holds the file, a report
and the lines of code that load it; one of that name that is there already is replaced.

Leaves with 0 when done, 1 when it could not be done, 2 for wrong flags, and 3 when the bundle was
written but a gate (--max_accuracy_drop, --min_agreement, --min_sqnr_db) was missed.

Examples:
  python -m convert --model shufflenet_v2 --int8
  python -m convert --model mobilenet_v1 --int8 --weights weights.h5 --data labels.csv
  python -m convert --model shufflenet_v1 --width 1 --int8 --target emulated:a53 --tune
  python -m convert --model shufflenet_v2 --int8 --qat_epochs 2 --qat_data train/
  python -m convert --model shufflenet_v2 --int8 --android_app app/
  python -m convert --config configs/shufflenet_v2_int8.toml --width 0.5
"""

import contextlib
import dataclasses
import sys
from pathlib import Path

from absl import app, flags

from convert.command_line import FLAGS, toml
from convert.settings import Estimator, Precision, Settings
from keras_models import registry
from shufflelite import cli, config
from shufflelite.progress import Progress

THREADS = 8
flags.DEFINE_string("model", None, "Network to convert; see --list.")
flags.DEFINE_float("width", None, "Width multiplier; default: the paper's 1.0.")
flags.DEFINE_integer("groups", None, "Groups of ShuffleNet V1's pointwise convolutions.")
flags.DEFINE_string("stem", None, "First layers, where the network has several: imagenet, cifar.")
flags.DEFINE_string("variant", None, "Variant, where the network has several.")
flags.DEFINE_bool("allow_any_width", None, "Allow widths that the paper does not have.")
flags.DEFINE_multi_string("option", [], "NAME=VALUE, any other option of the network's builder.")
flags.DEFINE_integer(
    "resolution", None, "Height and width; default: the weights', else the paper's."
)
flags.DEFINE_float("resolution_multiplier", None, "Multiplies the resolution; default 1.")
flags.DEFINE_integer("num_classes", None, "Default: the weights', else 1000.", lower_bound=1)
flags.DEFINE_string(
    "weights",
    None,
    "bundled, random, imagenet, or a file: .safetensors .h5 .pth .npz .... Default: bundled for a "
    "model that has such and is given alone, or just as it is bundled; else random.",
)
flags.DEFINE_string("source", None, "Whose file --weights is, where that is told wrongly.")
flags.DEFINE_string("labels", None, "File with a class name a line, for labels.txt.")
flags.DEFINE_enum("lowering", None, ["lowered", "direct"], "direct: translate layer by layer.")
flags.DEFINE_string("target", None, "Core to choose the form for: generic, host, emulated:a53 ....")
flags.DEFINE_bool("tune", None, "Measure the forms on --target and keep the fastest.")
flags.DEFINE_float("max_size_growth", None, "Percent that a faster form may add to the file.")
flags.DEFINE_enum_class("precision", None, Precision, "What the file computes with.")
flags.DEFINE_bool("int8", False, "Short for --precision int8.")
flags.DEFINE_enum("io_dtype", None, ["int8", "uint8", "float32"], "Input and output of int8 files.")
flags.DEFINE_bool("scores", None, "Pixels in, probabilities out, as MediaPipe Tasks expects.")
flags.DEFINE_bool("per_channel", None, "One scale a channel for weights (default), or a tensor.")
flags.DEFINE_string("calibration", None, "Pictures: a folder, csv or .npz; default: data-free.")
flags.DEFINE_integer("calibration_samples", None, "How many at most.", lower_bound=1)
flags.DEFINE_enum_class("ranges", None, Estimator, "How int8 ranges are chosen; default mse.")
flags.DEFINE_bool("bias_correction", None, "Make up for the rounding of weights; default yes.")
flags.DEFINE_integer("qat_epochs", None, "Train the int8 form; default 0.", lower_bound=0)
flags.DEFINE_string("qat_data", None, "Pictures with labels to train it on.")
flags.DEFINE_float("distillation", None, "Share of the float network's answers in it.")
flags.DEFINE_bool("equalize", None, "Even out the sizes of channels; same function; default no.")
flags.DEFINE_list("keep_float", None, "Layers of an int8 file to compute in float32; * is any.")
flags.DEFINE_list("int16", None, "Layers of an int8 file to give int16 activations; * is any.")
flags.DEFINE_bool("auto_precision", None, "Find layers for float32 until the gates are passed.")
flags.DEFINE_string("data", None, "Pictures to verify on: csv with labels, folder or .npz.")
flags.DEFINE_float("max_accuracy_drop", None, "Gate: points of top-1 that int8 may lose.")
flags.DEFINE_float("min_agreement", None, "Gate: percent of inputs that keep their best class.")
flags.DEFINE_float("min_sqnr_db", None, "Gate: signal to quantization noise of the logits.")
flags.DEFINE_string("out", None, "Folder for bundles; default build.")
flags.DEFINE_bool("c_array", None, "Put the file into the bundle as C source too; default no.")
flags.DEFINE_string("android_app", None, "Folder for an Android app that runs the bundle.")
flags.DEFINE_integer("seed", None, "Seed of all that is drawn at random; default 0.")
flags.DEFINE_string("config", None, "TOML file of settings; flags go over it.")
flags.DEFINE_multi_string("set", [], "section.key=value, a setting over --config.")
flags.DEFINE_bool("json", False, "Print the report as JSON.")
flags.DEFINE_bool("list", False, "List the networks and leave.")


def main(argv: list[str]) -> int:
    """Reads flags, converts, prints the report."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {argv[1]!r}")
    if flags.FLAGS.list:
        print("\n".join(registry.names()))
        return cli.DONE
    settings = _settings()
    from convert import validate
    from convert.bundle import android_app, writer
    from convert.resolve_model import complete, in_words

    progress = Progress("convert")
    asked, model = settings.model, complete(settings.model)
    settings = dataclasses.replace(settings, model=model)
    validate.check(settings)
    places = {"out": writer.folder(settings)}
    app_folder = flags.FLAGS.android_app
    if app_folder is not None:
        android_app.check(Path(app_folder), places["out"])
        places[android_app.FLAG] = Path(app_folder)
    if (model.options, model.resolution) != (asked.options, asked.resolution):
        words = in_words(model.name, model.options, model.side, model.classes)
        progress.tell(f"weights {model.weights}: {words}")
    with contextlib.ExitStack() as locks:
        for flag, place in places.items():
            locks.enter_context(writer.exclusive(place, flag=flag))
        import tensorflow as tf  # not for --help and wrong flags

        from convert.pipeline import run

        # As many on any machine: sums are divided among them, and rounded as they are divided.
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        folder, report = run(settings, progress)
        if app_folder is not None:
            android_app.write(Path(app_folder), folder)
    from convert.bundle.report import rows, to_json

    if flags.FLAGS.json:
        print(to_json(report), end="")
    else:
        print("\n".join(f"{what:22} {much}" for what, much in rows(report)))
        print(f"{'bundle':22} {folder}")
        if app_folder is not None:
            print(f"{'Android app':22} {app_folder}")
    sys.stdout.flush()  # in a log that holds both, the verdict comes last
    for gate in report.gates:
        if not gate.passed:
            print(
                f"convert: gate missed: {gate.flag} {gate.limit:g}, got {gate.value:.2f}",
                file=sys.stderr,
            )
    return cli.DONE if report.passed else cli.GATE_MISSED


def _settings() -> Settings:
    given = flags.FLAGS
    if given.int8 and given.precision not in (None, Precision.INT8):
        raise app.UsageError(f"--int8 contradicts --precision {given.precision.value}")
    if not given.model and not given.config:
        raise app.UsageError("expected --model NAME or --config FILE; --list names the models")
    overrides = list(given.set)
    for option in given.option:
        (name, *_), _ = config.parse_override(option, flag="option")
        if name in FLAGS and given[name].present:
            raise app.UsageError(f"--{name} and --option {option}: expected one of them")
        overrides.append(f"model.options.{option}")
    for flag, place in FLAGS.items():
        value = Precision.INT8 if flag == "precision" and given.int8 else given[flag].value
        if value is not None:
            overrides.append(f"{place}={toml(getattr(value, 'value', value))}")
    if given.config:
        return config.load(given.config, Settings, overrides)
    return config.build({}, Settings, overrides, origin="convert")


if __name__ == "__main__":
    cli.run(main, name="convert")
