"""Starts commands by forking a process that has imported TensorFlow already.

An import of TensorFlow costs 5 to 9 CPU-seconds and a fork 0.1, and most commands that tests start
do little else.  `run` and `Popen` take what `subprocess.run` and `subprocess.Popen` take, for
commands `[sys.executable, "-m", MODULE, ...]`, `[sys.executable, "-c", CODE, ...]` and
`[sys.executable, FILE, ...]`.  `proxy` writes a program for other programs to start.

The forked process has its own arguments, folder, environment, descriptors, sys.path and process id.
Start a real process instead where the test is about the start itself: what is imported, closed
descriptors, the encoding of the terminal, limits, PYTHONHASHSEED.

This file is also the server: it runs without the project, as `python -I forkserver.py SOCKET ...`.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TENSORFLOW = (
    *("tensorflow", "tf_keras", "tensorflow_model_optimization.quantization.keras"),
    *("tensorflow.lite.python.lite", "ai_edge_litert.interpreter", "h5py", "PIL.Image"),
)
LIGHT = ("absl.app", "numpy", "PIL.Image", "rich.console", "rich.table")  # no TensorFlow
HANG_S = 1200.0  # no command takes as long, on however busy a machine
_LONGEST = 1 << 20  # bytes of a request
_running: dict[tuple[str, ...], str] = {}  # imported modules -> socket of their server
_starting = threading.Lock()


class Popen(subprocess.Popen[Any]):
    """A process that is forked from the server which has imported `modules`."""

    def __init__(
        self, args: Sequence[Any], *, modules: Sequence[str] = TENSORFLOW, **options: Any
    ) -> None:
        """Starts the command; `options` are those of `subprocess.Popen`, but for limits and ids."""
        self._modules = tuple(modules)
        super().__init__(args, **options)

    # What is overridden is internal to the standard library, and the same in Python 3.10 to 3.13.

    def _execute_child(self, args: Any, *others: Any) -> None:
        cwd, env, pipes = others[4], others[5], others[9:15]
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        descriptors = [
            own if fd == -1 else fd for own, fd in enumerate((p2cread, c2pwrite, errwrite))
        ]
        try:
            command = [os.fspath(word) for word in args]
            assert command.pop(0) == sys.executable, command
            self._connection = _request(server(self._modules), command, cwd, env, descriptors)
            self.pid = int(self._connection.recv(32))
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        self._connection.setblocking(not wait_flags & os.WNOHANG)
        try:
            status = int(self._connection.recv(32))
        except BlockingIOError:
            return 0, 0
        self._connection.close()
        return self.pid, status

    def _internal_poll(self, _deadstate: Any = None, **_: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def run(
    args: Sequence[Any],
    *,
    input: Any = None,
    timeout: float | None = HANG_S,
    capture_output: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Starts a command and waits for its end, as `subprocess.run` does."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(args, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def proxy(path: Path, modules: Sequence[str] = TENSORFLOW) -> Path:
    """Writes a program that stands for `python` in shell commands; its commands are forked."""
    path.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" {server(tuple(modules))} -- "$@"\n'
    )
    path.chmod(0o755)
    return path


def server(modules: tuple[str, ...]) -> str:
    """The socket of this process's server that has imported those; it starts on first use."""
    with _starting:
        if modules not in _running:
            folder = tempfile.TemporaryDirectory(prefix="forkserver")
            path = f"{folder.name}/socket"
            process = subprocess.Popen(
                [sys.executable, "-I", __file__, path, *modules],
                stdin=subprocess.PIPE,  # the server ends with us
                stdout=subprocess.PIPE,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            assert process.stdin is not None
            assert process.stdout is not None
            with process.stdout as ready:
                assert ready.readline() == b"ready\n"
            atexit.register(folder.cleanup)
            atexit.register(process.wait)
            atexit.register(process.stdin.close)
            _running[modules] = path
    return _running[modules]


def _request(
    path: str, command: Sequence[str], cwd: Any, env: Any, descriptors: Sequence[int]
) -> socket.socket:
    """The connection, from which come the process id and, in the end, the status."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
    connection.connect(path)
    message = {
        "command": command,
        "cwd": os.path.abspath(os.fsdecode(cwd or os.curdir)),
        "env": {os.fsdecode(k): os.fsdecode(v) for k, v in (env or os.environ).items()},
    }
    socket.send_fds(connection, [json.dumps(message).encode()], descriptors)
    return connection


def _as_proxy(path: str, command: Sequence[str]) -> int:
    """Has the server run the command with our descriptors; hands signals on; the exit code."""
    connection = _request(path, command, None, None, [0, 1, 2])
    pid = int(connection.recv(32))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = os.waitstatus_to_exitcode(int(connection.recv(32) or signal.SIGKILL))
    return code if code >= 0 else 128 - code


def _serve(path: str, modules: Sequence[str]) -> tuple[dict[str, Any], list[int]]:
    """Answers requests; returns in each forked process, with its request and descriptors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who wait for commands
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(64)
    os.write(1, b"ready\n")
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == 0:  # whoever started this server is gone
                for pid in {other.data[0] for other in selector.get_map().values() if other.data}:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            if key.fileobj is listener:
                connection, _ = listener.accept()
                message, descriptors, _, _ = socket.recv_fds(connection, _LONGEST, 3)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # OpenBLAS has threads, and expects forks
                    pid = os.fork()
                if not pid:
                    connection.close()
                    for other in list(selector.get_map().values()):
                        if isinstance(other.fileobj, socket.socket):
                            other.fileobj.close()
                        elif other.fd:
                            os.close(other.fd)
                    selector.close()
                    return json.loads(message), descriptors
                for descriptor in descriptors:
                    os.close(descriptor)
                connection.send(str(pid).encode())
                pidfd = os.pidfd_open(pid)
                selector.register(pidfd, selectors.EVENT_READ, (pid, connection))
                selector.register(connection, selectors.EVENT_READ, (pid, pidfd))
            elif isinstance(key.data[1], int):  # whoever waits for the process is gone
                os.kill(key.data[0], signal.SIGKILL)
                selector.unregister(key.fileobj)
            else:
                pid, connection = key.data
                _, status = os.waitpid(pid, 0)
                for one in (key.fd, connection):
                    with contextlib.suppress(KeyError):
                        selector.unregister(one)
                with contextlib.suppress(OSError):
                    connection.send(str(status).encode())
                os.close(key.fd)
                connection.close()
                break  # what else was selected may be closed


def _run(message: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Becomes the program: does what Python does before it runs a module, a string or a file."""
    os.chdir(message["cwd"])
    for own, descriptor in enumerate(descriptors):
        os.dup2(descriptor, own)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(message["env"])
    tempfile.tempdir = None  # asks TMPDIR again
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.orig_argv[:] = [sys.executable, *message["command"]]  # a training starts itself again
    kind, *words = message["command"]
    while kind == "-W":
        action, kind, *words = words
        warnings.simplefilter(action)
    search = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    first = os.getcwd() if kind == "-m" else "" if kind == "-c" else str(Path(kind).parent)
    sys.path[:0] = [first, *search]
    if kind in ("-m", "-c"):
        program, *words = words
    sys.argv[:] = [kind, *words]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[2] == "--":
        sys.exit(_as_proxy(sys.argv[1], sys.argv[3:]))
    _run(*_serve(sys.argv[1], sys.argv[2:]))
