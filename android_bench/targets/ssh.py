"""ARM Linux boards (and other Linux machines) through the OpenSSH client."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import BinaryIO

from android_bench.measurement import Options, TargetError
from android_bench.targets import client_process
from android_bench.targets.remote_shell import (
    DroppedError,
    Output,
    TooMuchOutputError,
    last_line,
    unended,
)
from android_bench.targets.remote_target import ShellTarget
from shufflelite.errors import FlagError, InputError

CONNECT_S = 30.0
_READY = "shufflelite-is-connected"
_LONGEST_LINE = 1 << 16
_HINTS = {  # messages of ssh, and what to do
    "Permission denied": "login must work without a password: see ssh-copy-id and ssh-agent",
    "REMOTE HOST IDENTIFICATION": "its key has changed: find out why, then ssh-keygen -R {host}",
    "Host key verification failed": "connect once by hand (ssh {host}) to check its key",
    "Could not resolve": "check the name, or add it to ~/.ssh/config",
    "Connection refused": "start its SSH server, or check the port",
    "timed out": "check that it is switched on and in the network",
    "No route to host": "check that it is switched on and in the network",
}


def open_target(address: str, *, options: Options) -> ShellTarget:
    """Opens a machine.

    Args:
      address: [USER@]HOST[:PORT], where HOST may be a name of ~/.ssh/config.
      options: Options of the target.

    Raises:
      InputError: It cannot be reached or used.
    """
    try:
        return ShellTarget(SshShell(address), options=options)
    except TargetError as error:
        raise InputError(str(error)) from error


class SshShell:
    """One connection of the OpenSSH client, which all commands share.

    The process that holds it reads from a pipe of this process, so it ends with this process, even
    if that is killed.
    """

    system = "linux"
    folders = ("/tmp", "/var/tmp", ".")  # "." is the user's home

    def __init__(self, address: str) -> None:
        # ssh would take a leading - as an option.
        match = re.fullmatch(
            r"((?:[^\s@-][^\s@]*@)?(?:\[[\w:.%]+\]|[\w.]+[\w.-]*))(?::(\d+))?", address
        )
        if not match:
            raise FlagError(f"--target=ssh:{address}: expected ssh:[USER@]HOST[:PORT]")
        self.name = f"ssh:{address}"
        self.stopping = threading.Event()
        self._host = match[1].replace("[", "").replace("]", "")
        if shutil.which("ssh") is None:
            raise InputError(f"{self.name}: needs the OpenSSH client; install it (openssh-client)")
        self._folder = tempfile.mkdtemp(prefix="shufflelite-ssh-")
        # Names of Unix sockets have at most 104 to 108 bytes, and ssh expands % and more.
        if not re.fullmatch(r"[\w./-]{1,60}", self._folder):
            os.rmdir(self._folder)
            self._folder = tempfile.mkdtemp(prefix="shufflelite-ssh-", dir="/tmp")
        self._words = [
            *("ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S / 2:.0f}"),
            *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
            *("-o", "ClearAllForwardings=yes", "-o", "LogLevel=ERROR"),
            *("-o", f"ControlPath={self._folder}/s"),
            *(("-p", match[2]) if match[2] else ()),
        ]
        self._master: subprocess.Popen[bytes] | None = None
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def run(self, command: str, *, timeout_s: float = 60.0) -> Output:
        """Runs a command of the machine's sh."""
        return self._run(f"({command}) 2>&1", stdin=None, timeout_s=timeout_s)

    def push(self, path: Path, to: str) -> None:
        """Copies a file to the machine."""
        size_mb = path.stat().st_size / 1e6
        with path.open("rb") as file:
            output = self._run(f"cat 2>&1 > {shlex.quote(to)}", stdin=file, timeout_s=60 + size_mb)
        if "No space left" in output.text:
            raise TargetError(
                f"{self.name}: no space left for {path.name} ({size_mb:.1f} MB); free some in"
                f" {to.rpartition('/')[0]}"
            )
        if output.code:
            raise TargetError(
                f"{self.name}: writing {to} exited with {output.code}: {last_line(output.text)}"
            )

    def wait(self, *, timeout_s: float) -> None:
        """Reconnects until that succeeds."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                self._connect()
                return
            except DroppedError as error:
                if time.monotonic() >= end:
                    raise TargetError(
                        f"{self.name}: expected it back within {timeout_s:g} s; {error}"
                    ) from error
            if self.stopping.wait(0.5):
                raise KeyboardInterrupt

    def close(self) -> None:
        """Ends the connection."""
        self._disconnect()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, command: str, *, stdin: BinaryIO | None, timeout_s: float) -> Output:
        # The login shell may be any, so sh reads the command.
        remote = f"exec sh -c {shlex.quote(command)}"
        words = [*self._words, "-o", "ControlMaster=no", "--", self._host, remote]
        try:
            code, out, err = client_process.run(words, stdin=stdin, timeout_s=timeout_s)
        except (TimeoutError, TooMuchOutputError) as error:
            raise unended(self.name, command, error, timeout_s=timeout_s) from error
        # 255 is a failure of ssh, or a command's exit code; only ssh prints on that stream.
        if code == 255 and (err.strip() or self._master is None or self._master.poll() is not None):
            raise DroppedError(
                f"{self.name}: the connection broke ({last_line(err) or 'it ended'})"
            )
        return Output(out, code)

    def _connect(self) -> None:
        """Starts the process that holds the connection, and waits until it does."""
        self._disconnect()
        words = [*self._words, "-o", "ControlMaster=yes", "--", self._host]
        self._master = subprocess.Popen(
            [*words, f"exec sh -c 'echo {_READY}; cat > /dev/null'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # a full pipe holds up a server that prints for ever
            start_new_session=True,
        )
        assert self._master.stdout is not None
        assert self._master.stderr is not None
        limit = threading.Timer(CONNECT_S, self._master.kill)
        limit.start()
        try:
            # After the output of login scripts.
            for line in iter(partial(self._master.stdout.readline, _LONGEST_LINE), b""):
                if line.strip() == _READY.encode():
                    return
            errors = self._master.stderr.read(_LONGEST_LINE).decode(errors="replace")
        finally:
            limit.cancel()
        self._disconnect()
        host = self._host
        hint = next((hint.format(host=host) for key, hint in _HINTS.items() if key in errors), "")
        reason = last_line(errors) or f"no connection within {CONNECT_S:g} s"
        raise DroppedError(f"{self.name}: {reason}{'; ' if hint else ''}{hint}")

    def _disconnect(self) -> None:
        if self._master is not None:
            self._master.kill()
            self._master.communicate()
            self._master = None
        # A killed client leaves its socket behind.
        Path(self._folder, "s").unlink(missing_ok=True)
