"""Requests to the adb server: the list of devices, and commands of a device's shell.

adbutils connects to the server and starts it.  Its readers split names at blanks and bound neither
the time nor the size of an answer; these follow protocol.txt and SERVICES.TXT of
platform/packages/modules/adb.
"""

import re
import struct
import time

import adbutils

from android_bench.targets.remote_shell import OUTPUT_BYTES, Output, TooMuchOutputError

ANSWER_S = 60.0  # for the server's own answers
_CODE = "shufflelite-exit-code:"  # the shells of old phones report none
_STDOUT, _STDERR, _EXIT = 1, 2, 3  # packets of newer shells


def client() -> adbutils.AdbClient:
    """Returns a client of the server of $ANDROID_ADB_SERVER_PORT."""
    return adbutils.AdbClient(socket_timeout=ANSWER_S)


def states() -> dict[str, str]:
    """Returns the state of each device by its serial; starts the server if none runs."""
    with client().make_connection() as connection:
        connection.send_command("host:devices")
        connection.check_okay()
        return parse_states(connection.read_string_block())


def parse_states(answer: str) -> dict[str, str]:
    """Reads the answer to host:devices; serials and states may hold blanks."""
    lines = (line.partition("\t") for line in answer.split("\n"))
    return {serial: state.strip() for serial, tab, state in lines if tab}


class Device(adbutils.AdbDevice):
    """adbutils' device, which closes its sockets also if the server refuses."""

    def open_transport(
        self, command: str | None = None, timeout: float | None = ANSWER_S
    ) -> adbutils.AdbConnection:
        """Connects to the device, or asks the server about it."""
        connection = self._client.make_connection(timeout=timeout)
        try:
            request = f"host-serial:{self.serial}:{command}" if command else ""
            connection.send_command(request or f"host:transport:{self.serial}")
            connection.check_okay()
        except BaseException:
            connection.close()
            raise
        return connection


def run(device: Device, command: str, *, timeout_s: float, packets: bool) -> Output:
    """Runs a command of the device's shell.

    Args:
      device: The device.
      command: The command.
      timeout_s: How long the command may take.
      packets: Whether the device has the feature shell_v2: packets, and an exit code.

    Raises:
      AdbError, OSError, EOFError: The connection broke; TimeoutError: the command took too long.
      TooMuchOutputError: It printed more than OUTPUT_BYTES.
    """
    end = time.monotonic() + timeout_s
    with device.open_transport(timeout=timeout_s) as connection:
        service = f"shell,v2:{command}" if packets else f"shell:{command}; echo {_CODE}$?"
        connection.send_command(service)
        connection.check_okay()
        reader = _Reader(connection, end)
        output, code = reader.packets() if packets else reader.until_closed()
    return Output(output.decode(errors="replace").replace("\r\n", "\n"), code)


class _Reader:
    """Reads a connection until a deadline."""

    def __init__(self, connection: adbutils.AdbConnection, end: float) -> None:
        self._socket = connection.conn
        self._end = end

    def packets(self) -> tuple[bytearray, int]:
        output = bytearray()
        while True:
            kind, size = struct.unpack("<BI", self._exactly(5))
            if len(output) + size > OUTPUT_BYTES:
                raise TooMuchOutputError
            data = self._exactly(size)
            if kind in (_STDOUT, _STDERR):
                output += data
            elif kind == _EXIT and data:
                return output, data[0]

    def until_closed(self) -> tuple[bytearray, int]:
        output = bytearray()
        while chunk := self._some(1 << 16):
            output += chunk
            if len(output) > OUTPUT_BYTES:
                raise TooMuchOutputError
        text, _, code = output.rpartition(_CODE.encode())
        if not re.fullmatch(rb"\d{1,3}\s*", code):
            raise EOFError("the shell ended without an exit code")
        return text, int(code)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self._some(min(size - len(data), 1 << 16))
            if not chunk:
                raise EOFError(f"expected {size} bytes, got {len(data)}")
            data += chunk
        return bytes(data)

    def _some(self, most: int) -> bytes:
        remaining_s = self._end - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining_s)
        return self._socket.recv(most)
