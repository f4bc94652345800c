"""Converts a network to a TFLite file, and measures the file against the float network.

Writes a bundle, <out>/<model>_<options>_<resolution>_<precision>/, with the file, a report and the
code that loads it; it replaces a bundle of the same name.

Exit status: 0 success, 1 failure, 2 usage error, 3 the bundle was written but missed a gate
(--max_accuracy_drop, --min_agreement, --min_sqnr_db).

Examples:
  python -m convert --model shufflenet_v2 --int8
  python -m convert --model mobilenet_v1 --int8 --weights weights.h5 --data labels.csv
  python -m convert --model shufflenet_v1 --width 1 --int8 --target emulated:a53 --tune
  python -m convert --model shufflenet_v2 --int8 --qat_epochs 2 --qat_data train/
  python -m convert --model shufflenet_v2 --int8 --android_app app/
  python -m convert --config configs/shufflenet_v2_int8.toml --width 0.5
"""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from absl import app

from convert.settings import ConversionSettings
from keras_models import option_flags, registry
from shufflelite import cli, config, flags
from shufflelite.config import setting
from shufflelite.progress import Progress

THREADS = 8


@dataclass(frozen=True)
class ConvertFlags:
    """Flags that are no settings of the conversion."""

    TOPIC = "output"

    android_app: str | None = setting(
        None, value_name="FOLDER", help="Also write an Android app that runs the bundle."
    )
    json: bool = setting(False, help="Print the report as JSON.")
    config: str | None = setting(
        None, topic="general", value_name="FILE", help="TOML file of settings, which flags replace."
    )
    set: tuple[str, ...] = setting(
        (),
        topic="general",
        repeats=True,
        value_name="SECTION.KEY=VALUE",
        help="A setting that replaces that of --config; may be repeated.",
    )
    list: bool = setting(False, topic="network", help="Print the names of networks.")


SETTINGS = (ConversionSettings, ConvertFlags)


def main(argv: list[str]) -> int:
    """Reads flags, converts, prints the report."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {argv[1]!r}")
    command = flags.read(ConvertFlags)
    if command.list:
        print("\n".join(registry.names()))
        return cli.DONE
    requested = read_settings()
    from convert import validate
    from convert.bundle import android_app, writer
    from convert.conversion import resolve
    from convert.resolve_model import describe

    progress = Progress("convert")
    conversion = resolve(requested)
    settings = conversion.settings
    validate.check(conversion)
    folders = {"out": conversion.folder}
    app_folder = Path(command.android_app) if command.android_app is not None else None
    if app_folder is not None:
        android_app.check(app_folder, conversion.folder)
        folders[android_app.FLAG] = app_folder
    model = settings.model
    if (model.options, model.resolution) != (requested.model.options, requested.model.resolution):
        network = describe(model.name, model.options, model.input_resolution, model.classes)
        progress.tell(f"weights {model.weights}: {network}")
    with contextlib.ExitStack() as locks:
        for flag, folder in folders.items():
            locks.enter_context(writer.exclusive(folder, flag=flag))
        import tensorflow as tf  # not for --help and wrong flags

        from convert.pipeline import run

        # As many on any machine: sums are divided among them, and rounded as they are divided.
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        folder, report = run(conversion, progress)
        if app_folder is not None:
            android_app.write(app_folder, folder)
    from convert.bundle.report import rows, to_json

    if command.json:
        print(to_json(report), end="")
    else:
        app_facts = [] if app_folder is None else [("Android app", app_folder)]
        cli.print_facts([*rows(report), ("bundle", folder), *app_facts], width=22)
    sys.stdout.flush()  # in a log that holds both, the verdict comes last
    for gate in report.gates:
        if not gate.passed:
            progress.tell(f"gate missed: {gate.flag} {gate.limit:g}, got {gate.value:.2f}")
    return cli.DONE if report.passed else cli.GATE_MISSED


def read_settings() -> ConversionSettings:
    """The settings of --config, --set and the other flags."""
    command = flags.read(ConvertFlags)
    passed = option_flags.expand(flags.given(ConversionSettings))
    if "model" not in passed and not command.config:
        raise app.UsageError("expected --model NAME or --config FILE; --list names the models")
    if command.config:
        return config.load(command.config, ConversionSettings, command.set, flags=passed)
    return config.build({}, ConversionSettings, command.set, origin="", flags=passed)


if __name__ == "__main__":
    cli.run(main, name="convert", settings=SETTINGS)
