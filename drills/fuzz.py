"""Feeds damaged files to every reader of foreign files.

A reader returns a value, or raises its documented error with one line.  Anything else is a finding:
another exception, a crash, more than LIMIT_S seconds of CPU time or LIMIT_BYTES of memory.  Each
reader runs in a process of its own, so that crashes are counted.  "isolated crash" counts those
that the commands themselves isolate in a child process.

python drills/fuzz.py --cases 10000
python drills/fuzz.py --reader pth --first 4711 --cases 1        (one of them again)
"""

import io
import multiprocessing
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from absl import app, flags
from fuzz_targets import Reader, readers

from shufflelite.errors import InputError

flags.DEFINE_integer("cases", 1000, "Cases of each reader.", lower_bound=1)
flags.DEFINE_integer("first", 0, "Number of the first case.", lower_bound=0)
flags.DEFINE_integer("seed", 0, "Seed of the damage.")
flags.DEFINE_multi_string("reader", [], "Only these readers.")

LIMIT_S = 2  # of CPU time, which does not depend on other processes
LIMIT_BYTES = 2 << 30  # of address space above that at the start: a picture of 89 megapixels fits
LONGEST_LINE = 2000
SHOWN = 20  # findings of a reader
EXTREMES = (
    *(struct.pack("<f", value) for value in (float("nan"), float("inf"), -1.0, 1e38)),
    *(sign * size for size in (1, 2, 4, 8) for sign in (b"\0", b"\xff")),
    *(b"\xff" * size + b"\x7f" for size in (1, 3, 7)),
    *(b"\0" * size + b"\x80" for size in (0, 1, 3, 7)),
)
NUMBERS = (b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"1e-9", b"9" * 19, b"9" * 400, b"9" * 5000)
SIGNS = b"\0\n\r,;:=\"'[](){}<>/\\#-+.eE0 \xff"
FORK = multiprocessing.get_context("fork")


def main(argv: list[str]) -> int:
    """Returns 1 if a reader has findings."""
    del argv
    arguments = flags.FLAGS
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        known = {reader.name: reader for reader in readers(Path(folder))}
        if unknown := set(arguments.reader) - known.keys():
            raise app.UsageError(f"expected readers of {', '.join(known)}, got {unknown.pop()}")
        print("| reader | cases | read | refused | isolated crash | findings | seconds |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for name in arguments.reader or known:
            start = time.monotonic()
            cases = range(arguments.first, arguments.first + arguments.cases)
            counts, findings = fuzz(known[name], cases, arguments.seed)
            seconds = time.monotonic() - start
            figures = [counts[kind] for kind in ("read", "refused", "crashed")]
            row = [name, arguments.cases, *figures, len(findings), f"{seconds:.0f}"]
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            for case, finding in list(findings.items())[:SHOWN]:
                again = f"--seed {arguments.seed} --reader {name} --first {case} --cases 1"
                print(f"    {again}: {finding}")
            total += len(findings)
    return 1 if total else 0


def fuzz(reader: Reader, cases: range, seed: int) -> tuple[Counter[str], dict[int, str]]:
    """Counts of "read", "refused" and "crashed", and the findings by their cases."""
    counts: Counter[str] = Counter()
    findings: dict[int, str] = {}
    todo = cases
    while todo:
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_work, args=(reader, todo, seed, sender), daemon=True)
        process.start()
        sender.close()
        try:
            while todo:
                verdict = receiver.recv()
                counts[verdict] += 1
                if verdict not in ("read", "refused"):
                    findings[todo[0]] = verdict
                todo = todo[1:]
            process.join()
        except EOFError:
            process.join()
            if process.exitcode == 1:
                sys.exit(f"{reader.name} refuses a valid file")
            if reader.may_crash:
                counts["crashed"] += 1
            else:
                findings[todo[0]] = _death(process.exitcode or 0)
            todo = todo[1:]
    return counts, findings


def damaged(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, after one to four accidents."""
    content = rng.choice(seeds)
    if content.startswith(b"PK\3\4") and rng.random() < 0.5:
        return _inside_archive(rng, content)  # its checksums are right again
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(ACCIDENTS)(rng, content, seeds)
    return content


def _work(reader: Reader, cases: range, seed: int, sender: Connection) -> None:
    for content in reader.seeds:
        reader.read(content)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # native code talks
    size_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes + LIMIT_BYTES, resource.RLIM_INFINITY))
    for case in cases:
        content = damaged(random.Random(f"{seed} {reader.name} {case}"), reader.seeds)
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)  # its signal ends the process
        verdict = _verdict(reader, content)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sender.send(verdict)


def _verdict(reader: Reader, content: bytes) -> str:
    try:
        reader.read(content)
    except Exception as error:
        message = str(error)
        if _is_of_memory(error):
            return f"more than {LIMIT_BYTES >> 20} MB of memory"
        if type(error) is not reader.refuses and not isinstance(error, InputError):
            return f"{type(error).__name__}: {' '.join(message.split())[:200]}"
        if len(message.splitlines()) > 1 or len(message) > LONGEST_LINE:
            return f"not one line, but {len(message)} letters: {message[:100]!r}"
        return "refused"
    return "read"


def _is_of_memory(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, MemoryError) or _is_of_memory(error.__cause__ or error.__context__)
    )


def _death(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"more than {LIMIT_S} s"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"left with {code}"


def _inside_archive(rng: random.Random, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    members[name] = damaged(rng, [members[name]])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return stream.getvalue()


def _flip(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    spoiled = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 16)) if content else 0):
        spoiled[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(spoiled)


def _overwrite(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    place, value = rng.randint(0, len(content)), rng.choice(EXTREMES)
    if rng.random() < 0.5:
        place -= place % 4  # where binary formats have their numbers
    return content[:place] + value + content[place + len(value) :]


def _change_number(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    """Of a text."""
    place = rng.randint(0, len(content))
    digits = re.compile(rb"\d+").search(content, place)
    if digits is None:
        return _overwrite(rng, content, seeds)
    return content[: digits.start()] + rng.choice(NUMBERS) + content[digits.end() :]


def _cut(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    return content[: rng.randint(0, len(content))]


def _remove(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = _part(rng, content)
    return content[:start] + content[end:]


def _repeat(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = _part(rng, content)
    return content[:end] + content[start:end] * rng.choice((1, 1, 3, 30)) + content[end:]


def _splice(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    (place, _), (start, end) = _part(rng, content), _part(rng, other)
    return content[:place] + other[start:end] + content[rng.choice((place, place + end - start)) :]


def _insert(rng: random.Random, content: bytes, seeds: Sequence[bytes]) -> bytes:
    place = rng.randint(0, len(content))
    if rng.random() < 0.5:
        return content[:place] + rng.randbytes(rng.choice((1, 4, 40))) + content[place:]
    sign = bytes([rng.choice(SIGNS)])
    return content[:place] + sign * rng.choice((1, 2, 300, 30_000)) + content[place:]


def _part(rng: random.Random, content: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(content))
    return start, min(len(content), start + rng.choice((1, 4, 32, 256, len(content))))


ACCIDENTS: Sequence[Callable[[random.Random, bytes, Sequence[bytes]], bytes]] = (
    *(_flip, _flip, _overwrite, _overwrite, _change_number),
    *(_cut, _remove, _repeat, _splice, _insert),
)


if __name__ == "__main__":
    app.run(main)
