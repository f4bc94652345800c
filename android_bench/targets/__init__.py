"""Machines that run models.  A target loads a model and returns a session to measure in rounds."""

import difflib
import os
from collections.abc import Mapping, Sequence

from android_bench.measurement import DEFAULT_DELEGATE, Options, Target
from shufflelite.errors import FlagError, InputError

DELEGATES: Mapping[str, Sequence[str]] = {  # by the target's name
    "host": ("xnnpack", "none"),
    "adb": ("xnnpack", "gpu", "nnapi", "none"),
    "adb-apk": ("xnnpack", "gpu", "nnapi", "none"),
    "ssh": ("xnnpack", "gpu", "none"),
    "emulated": (),
}
UNSUPPORTED = {  # options that the target does not have
    "host": ("cores", "benchmark_binary"),
    "emulated": ("runtime", "threads", "cores", "benchmark_binary"),
}
ADB_PORT = "ANDROID_ADB_SERVER_PORT"
MAX_THREADS = 256
MAX_THREADS_PER_CORE = 4  # of this machine


def check(spec: str, options: Options) -> None:
    """Checks what needs no device.

    Raises:
      FlagError: The target is unknown, or does not have an option.
      InputError: The environment is wrong.
    """
    if "," in spec:
        several = " ".join(f"--target={one}" for one in spec.split(","))
        raise FlagError(f"--target={spec}: expected one target; repeat the flag: {several}")
    name, _, address = spec.partition(":")
    if name not in DELEGATES or (name == "host" and spec != name):
        near = difflib.get_close_matches(name, DELEGATES, n=1)
        hint = f"Did you mean {near[0]!r}? " if near and near[0] != spec else ""
        raise FlagError(f"Unknown target {spec!r}. {hint}Known: {', '.join(DELEGATES)}.")
    if name == "emulated":
        from android_bench.emulated import cores

        cores.find(address)
    for option in UNSUPPORTED.get(name, ("runtime",)):
        if getattr(options, option) != getattr(Options(), option):
            raise FlagError(f"The target {spec} has no --{option}: leave it out.")
    if options.delegate is not None and options.delegate not in DELEGATES[name]:
        if not DELEGATES[name]:
            raise FlagError(f"The target {spec} has no --delegate: leave it out.")
        known = " or ".join(DELEGATES[name])
        raise FlagError(f"The target {spec} has no delegate {options.delegate}: choose {known}.")
    max_threads = MAX_THREADS
    if name == "host":
        max_threads = min(max_threads, MAX_THREADS_PER_CORE * (os.cpu_count() or 1))
    if not 1 <= options.threads <= max_threads:
        raise FlagError(
            f"--threads={options.threads}: expected 1 to {max_threads} on the target {spec}."
        )
    port = os.environ.get(ADB_PORT, "5037")
    if name.startswith("adb") and not (port.isdecimal() and 0 < int(port) < 1 << 16):
        # adbutils reads it on import, so check it before.
        raise InputError(f"{ADB_PORT}: expected the port of the adb server, got {port!r}.")


def open_target(spec: str, *, options: Options) -> Target:
    """Opens the target that `--target` names.

    Raises:
      FlagError: See `check`.
      InputError: It cannot be reached or used.
    """
    check(spec, options)
    name, _, address = spec.partition(":")
    if name == "host":
        from android_bench.targets.host import HostTarget

        return HostTarget(
            runtime=options.runtime,
            threads=options.threads,
            profile=options.profile,
            delegate=options.delegate or DEFAULT_DELEGATE,
        )
    if name == "emulated":
        from android_bench.targets.emulated import EmulatedTarget

        return EmulatedTarget(address, profile=options.profile)
    if name == "ssh":
        from android_bench.targets import ssh

        return ssh.open_target(address, options=options)
    from android_bench.targets import adb

    return adb.open_target(address, options=options, apk=name == "adb-apk")
