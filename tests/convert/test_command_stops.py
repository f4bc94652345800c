"""The command when it is stopped, when the disk is full, and when it is itself at fault."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from convert.bundle import writer
from tests.convert.places import contents
from tests.forkserver import HANG_S, LIGHT, Popen, run

ROOT = Path(__file__).parents[2]
WORDS = (
    *("--model=mobilenet_v1", "--width=0.25", "--resolution=32", "--num_classes=10"),
    *("--int8", "--calibration=pictures"),
)
NAME = "mobilenet_v1_x0.25_32_int8"
# A shell's background jobs, and so their children, are born deaf to Ctrl-C.
HEARING = (
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "os.execv(sys.argv[1], sys.argv[1:])",
)
COMMAND = (sys.executable, "-m", "convert")
STAGES = {  # stage: (how its beginning is known, the signal)
    "import of TensorFlow": ("libtensorflow", signal.SIGINT),
    "network": ("warning: random weights", signal.SIGINT),
    "quantize": ("pictures from", signal.SIGINT),
    "export": ("quantize: ", signal.SIGTERM),
    "verify": ("export: ", signal.SIGINT),
}
DEFECTS = {  # main's body: (exit code, what stderr says)
    "raise RuntimeError('a defect')": (1, ("Traceback (", "RuntimeError: a defect")),
    "os.abort()": (-signal.SIGABRT, ("Fatal Python error: Aborted", "in main")),
    "os.write(2, b'native log')\nwarnings.warn('for developers')\nreturn 0": (0, ()),
    "raise ImportError('libx.so: failed to map segment from shared object')": (
        1,
        ("convert: not enough memory: libx.so: failed",),
    ),
    'raise RuntimeError("can\'t start new thread")': (1, ("not enough memory: can't start",)),
    "raise type('AbortedError', (Exception,), {})('layer x: Status: 1, message:\\n none')": (
        1,
        ("convert: not enough memory: layer x: Status: 1, message: none",),
    ),
    "raise TypeError('descriptor pool: out of memory')": (
        1,
        ("convert: not enough memory: descriptor pool",),
    ),
    "threading.Thread(target=time.sleep, args=(999,)).start()\nraise MemoryError": (
        1,  # not waiting for a thread that comes to no end
        ("convert: not enough memory\n",),
    ),
    "np.zeros(2**50)": (1, ("convert: not enough memory: Unable to allocate",)),
    "return sys.stdout.write('x' * 9999) * 0": (1, ("convert: No space left on device: stdout",)),
}
SWALLOWERS = {
    "a __del__ method": """
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1000)
Deaf()
""",
    "except BaseException": """
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1000)
except BaseException:
    pass
""",
    "C++": """
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1000)
except KeyboardInterrupt as error:
    raise RuntimeError("what C++ makes of it") from error
""",
}
DISKS = {  # disk: what the last line says
    "full": "(No space left on device): make room there, or choose another",
    "read-only": "(Read-only file system): make room there, or choose another",
    "limited": "File too large",
}
OWN_MOUNTS = ("unshare", "--mount", *(("--map-root-user",) if os.getuid() else ()))
# The only writer, without what it imports: two bundles in turn, for ever or until all are written.
WRITER = """
import sys
from pathlib import Path
from convert.bundle import writer
print("ready", flush=True)
times = int(sys.argv[2])
while times:
    for text in ("old" * 99999, "new" * 99999):
        names = ["model.tflite", "report.json", "README.md", *["labels.txt"] * (text[0] == "o")]
        writer.write_folder(Path(sys.argv[1]), dict.fromkeys(names, text.encode()), flag="out")
    times -= 1
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def make_place(folder: Path, pictures: Path) -> Path:
    """A folder to convert in, with an earlier bundle where the new one would be."""
    shutil.copytree(pictures, folder / "pictures")
    # Verification takes a moment, in which it can be stopped.
    np.savez_compressed(folder / "many.npz", images=np.zeros((2000, 32, 32, 3), np.uint8))
    (folder / "build" / NAME).mkdir(parents=True)
    (folder / "build" / NAME / "report.json").write_text("{}")
    (folder / "build" / NAME / "model.tflite").write_bytes(b"an earlier model" * 9999)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def stop_in(stage: str, place: Path) -> tuple[int, str, str]:
    """Starts the command, stops it in that stage, and returns its exit code and outputs."""
    sign, number = STAGES[stage]
    importing = stage == "import of TensorFlow"
    popen, command = (subprocess.Popen, (*HEARING, *COMMAND)) if importing else (Popen, COMMAND)
    with popen(
        [*command, *WORDS, "--data=many.npz"],
        cwd=place,
        env=environment() | {"TMPDIR": str(place / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = ""
        if importing:
            maps = Path(f"/proc/{process.pid}/maps")
            while sign not in maps.read_text():
                assert process.poll() is None
                time.sleep(0.01)
        else:
            while sign not in said:
                said += process.stderr.readline()
                assert process.poll() is None, said
        process.send_signal(number)
        out, rest = process.communicate(timeout=HANG_S)
        return process.returncode, out, said + rest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("stage", STAGES)
def test_a_command_that_is_stopped_says_so_and_writes_nothing(
    stage: str, pictures: Path, tmp_path: Path
) -> None:
    place = make_place(tmp_path, pictures)
    (place / "tmp").mkdir()
    before = contents(place)
    code, out, err = stop_in(stage, place)
    number = STAGES[stage][1]
    how = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert (code, out) == (128 + number, ""), err
    assert all(line.startswith("convert: ") for line in err.splitlines())
    assert err.splitlines()[-1] == f"convert: {how}; no file was left half-written"
    assert contents(place) == before
    assert os.listdir(place / "tmp") == []


def run_main(
    body: str, place: Path, stdout: IO[str] | int = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command whose main is `body`."""
    program = (
        "import os, signal, sys, threading, time, warnings\n"
        "import numpy as np\nfrom shufflelite import cli\n"
    )
    program += "def main(argv):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    program += "cli.run(main, name='convert')\n"
    (place / "program.py").write_text(program)
    return subprocess.run(
        [*HEARING, sys.executable, "program.py"],
        cwd=place,
        env=environment() | variables,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG_S,
    )


@pytest.mark.parametrize("body", DEFECTS)
def test_a_defect_is_shown_though_the_native_log_is_not(body: str, tmp_path: Path) -> None:
    code, messages = DEFECTS[body]
    with open("/dev/full" if "stdout" in body else os.devnull, "w") as stdout:
        ran = run_main(body, tmp_path, stdout=stdout)
    assert ran.returncode == code, ran.stderr
    for message in messages:
        assert message in ran.stderr
    if not ran.stderr.startswith(("Traceback", "Fatal")):
        assert ran.stderr.count("\n") == len(messages)


@pytest.mark.parametrize("swallower", SWALLOWERS)
def test_ctrl_c_gets_through_what_swallows_it(swallower: str, tmp_path: Path) -> None:
    start = time.monotonic()
    ran = run_main(SWALLOWERS[swallower] + "time.sleep(1000)", tmp_path)
    assert ran.returncode == 130, ran.stderr
    assert ran.stderr == "convert: interrupted; no file was left half-written\n"
    assert time.monotonic() - start < 900


@pytest.mark.parametrize("end", ["return 0", "raise MemoryError", "os.kill(os.getpid(), 15)"])
def test_temporary_files_that_libraries_leave_are_removed(end: str, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    body = f"import tempfile\ntempfile.mkdtemp()\ntempfile.mkstemp()\n{end}\ntime.sleep(1000)"
    ran = run_main(body, tmp_path, TMPDIR=str(tmp_path / "tmp"))
    assert ran.returncode == {"return 0": 0, "raise MemoryError": 1}.get(end, 143), ran.stderr
    assert os.listdir(tmp_path / "tmp") == []


def test_ctrl_c_comes_too_late_for_what_is_done(tmp_path: Path) -> None:
    body = "import atexit\natexit.register(os.kill, os.getpid(), signal.SIGINT)\nreturn 0"
    ran = run_main(body, tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_writer_killed_at_any_moment_leaves_a_whole_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "net_int8"
    command = [sys.executable, "-c", WRITER, str(bundle)]
    rng = random.Random(0)
    found = set()
    for i in range(100):
        with subprocess.Popen(
            [*command, "-1"], env=environment(), stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05 + i / 100))
            process.kill()
        if bundle.exists():
            files = {path.name: path.read_text() for path in bundle.iterdir()}
            (text,) = {content.strip() for content in files.values()}
            assert len(files) == 3 + (text[0] == "o")
            assert len(text) == 3 * 99999
            found.add(text[:3])
        if i >= 25 and len(found) == 2:
            break
    assert found == {"old", "new"}
    subprocess.run([*command, "1"], env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert os.listdir(tmp_path) == ["net_int8"]


@pytest.mark.parametrize("flag", ["out", "android_app"])
def test_a_folder_that_another_run_writes_is_refused_at_once(
    flag: str, pictures: Path, tmp_path: Path
) -> None:
    place = make_place(tmp_path, pictures)
    folder = {"out": place / "build" / NAME, "android_app": place / "app"}[flag]
    with writer.exclusive(folder, flag=flag):
        before = contents(place)
        ran = run(
            [*COMMAND, *WORDS, "--android_app=app"],
            modules=LIGHT,
            cwd=place,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert contents(place) == before
    line = f"{folder}: another process writes there: wait until it is done, or choose another"
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"convert: {line} --{flag}.\n"


def meet(disk: str, place: Path) -> tuple[int, str, str]:
    """Converts onto such a disk; lists what is on it and what is not as it was."""
    if disk == "limited":
        shutil.copytree(place / "build", place / "earlier")
        with Popen(
            [*COMMAND, *WORDS], cwd=place, env=environment(), stdout=-1, stderr=-1, text=True
        ) as process:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
            out, err = process.communicate(timeout=HANG_S)
        listing = subprocess.run(
            ["sh", "-c", "ls -A build; diff -r earlier build"],
            cwd=place, capture_output=True, text=True,
        )  # fmt: skip
        return process.returncode, out + listing.stdout, err
    options = {"full": "rw", "read-only": "ro"}[disk]
    script = f"""
        mv build earlier && mkdir build && mount -t tmpfs -o size=400k none build &&
        cp -r earlier/. build && mount -o remount,bind,{options} build && "$@"
        code=$?; ls -A build; diff -r earlier build; exit $code
    """
    ran = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", script, "sh", *COMMAND, *WORDS],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    return ran.returncode, ran.stdout, ran.stderr


def may_mount() -> bool:
    with contextlib.suppress(FileNotFoundError):
        mount = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "none", "/tmp"]
        return subprocess.run(mount, capture_output=True).returncode == 0
    return False


@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_takes_no_bundle_keeps_the_earlier_one(
    disk: str, pictures: Path, tmp_path: Path
) -> None:
    if disk != "limited" and not may_mount():
        pytest.skip("mounting a disk of its own is not permitted here")
    code, out, err = meet(disk, make_place(tmp_path, pictures))
    assert (code, out) == (1, f"{NAME}\n"), err
    assert all(line.startswith("convert: ") for line in err.splitlines())
    assert DISKS[disk] in err.splitlines()[-1]
