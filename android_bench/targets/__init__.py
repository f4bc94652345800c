"""Where models run.  A target loads a model; the session it returns is measured round by round."""

import difflib
import os
from collections.abc import Mapping, Sequence

from android_bench.errors import FlagError
from android_bench.measurement import DEFAULT_DELEGATE, Options, Target
from shufflelite.errors import InputError

DELEGATES: Mapping[str, Sequence[str]] = {  # that can be chosen, by the target's name
    "host": ("xnnpack", "none"),
    "adb": ("xnnpack", "gpu", "nnapi", "none"),
    "adb-apk": ("xnnpack", "gpu", "nnapi", "none"),
    "ssh": ("xnnpack", "gpu", "none"),
    "emulated": (),
}
HAS_NOT = {  # options that the target is without
    "host": ("cores", "benchmark_binary"),
    "emulated": ("runtime", "threads", "cores", "benchmark_binary"),
}
ADB_PORT = "ANDROID_ADB_SERVER_PORT"
MAX_THREADS = 256
MAX_THREADS_PER_CORE = 4  # of this machine


def check(spec: str, options: Options) -> None:
    """Looks at what can be told without asking any device.

    Raises:
      FlagError: An unknown target, or asked for what it does not have.
      InputError: The environment is wrong.
    """
    if "," in spec:
        several = " ".join(f"--target={one}" for one in spec.split(","))
        raise FlagError(f"--target={spec}: expected one target; repeat the flag: {several}")
    name, _, where = spec.partition(":")
    if name not in DELEGATES or (name == "host" and spec != name):
        near = difflib.get_close_matches(name, DELEGATES, n=1)
        hint = f"Did you mean {near[0]!r}? " if near and near[0] != spec else ""
        raise FlagError(f"Unknown target {spec!r}. {hint}Known: {', '.join(DELEGATES)}.")
    if name == "emulated":
        from android_bench.emulated import cores

        cores.find(where)
    for option in HAS_NOT.get(name, ("runtime",)):
        if getattr(options, option) != getattr(Options(), option):
            raise FlagError(f"The target {spec} has no --{option}: leave it out.")
    if options.delegate is not None and options.delegate not in DELEGATES[name]:
        if not DELEGATES[name]:
            raise FlagError(f"The target {spec} has no --delegate: leave it out.")
        known = " or ".join(DELEGATES[name])
        raise FlagError(f"The target {spec} has no delegate {options.delegate}: choose {known}.")
    most = MAX_THREADS
    if name == "host":
        most = min(most, MAX_THREADS_PER_CORE * (os.cpu_count() or 1))
    if not 1 <= options.threads <= most:
        raise FlagError(f"--threads={options.threads}: expected 1 to {most} on the target {spec}.")
    port = os.environ.get(ADB_PORT, "5037")
    if name.startswith("adb") and not (port.isdecimal() and 0 < int(port) < 1 << 16):
        # To be told before adbutils is imported, which reads it then.
        raise InputError(f"{ADB_PORT}: expected the port of the adb server, got {port!r}.")


def open_target(spec: str, *, options: Options) -> Target:
    """The target that `--target` names, with what is asked of it.

    Raises:
      FlagError: See `check`.
      InputError: It is not there, or not as it must be.
    """
    check(spec, options)
    name, _, where = spec.partition(":")
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

        return EmulatedTarget(where, profile=options.profile)
    if name == "ssh":
        from android_bench.targets import ssh

        return ssh.open_target(where, options=options)
    from android_bench.targets import adb

    return adb.open_target(where, options=options, apk=name == "adb-apk")
