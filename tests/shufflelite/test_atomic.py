"""Files in folders where others plant links: nothing of the user's is overwritten."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from shufflelite import atomic, lock

Plant = Callable[[Path, Path], None]
THESIS = b"years of work"
TOKEN = "0123abcd"


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    path = tmp_path / "thesis.tex"
    path.write_bytes(THESIS)
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_a_link_at_a_temporary_name_is_not_followed(
    plant: Plant, thesis: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda count: TOKEN)
    plant(shared / f"x.json.{os.getpid()}.{TOKEN}.part", thesis)
    with pytest.raises(FileExistsError):
        atomic.write(shared / "x.json", b"new")
    assert thesis.read_bytes() == THESIS
    monkeypatch.undo()
    plant(shared / "x.json", thesis)
    atomic.write(shared / "x.json", b"new")
    assert thesis.read_bytes() == THESIS
    assert (shared / "x.json").read_bytes() == b"new"


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_a_link_at_the_part_of_a_download_is_replaced(
    plant: Plant, thesis: Path, shared: Path
) -> None:
    part = shared / "x.h5.part"
    plant(part, thesis)
    assert atomic.part_size(part) == 0  # nothing to append to
    with atomic.open_part(part, append=False) as file:
        file.write(b"new")
    assert (thesis.read_bytes(), part.read_bytes()) == (THESIS, b"new")
    assert atomic.part_size(part) == 3
    with atomic.open_part(part, append=True) as file:
        file.write(b"er")
    assert part.read_bytes() == b"newer"


def test_a_link_planted_while_a_download_is_asked_for_is_refused(
    thesis: Path, shared: Path
) -> None:
    (shared / "x.h5.part").symlink_to(thesis)
    with pytest.raises(OSError, match=r"x\.h5\.part"):
        atomic.open_part(shared / "x.h5.part", append=True)
    assert thesis.read_bytes() == THESIS


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_a_link_at_a_lock_is_not_written(plant: Plant, thesis: Path, shared: Path) -> None:
    plant(shared / ".lock", thesis)
    try:
        with lock.exclusive(shared / ".lock"):
            pass
    except OSError:
        assert plant is Path.symlink_to
    assert thesis.read_bytes() == THESIS


def test_leftovers_are_those_of_processes_that_have_ended(shared: Path) -> None:
    kept = [
        *(f"a.{os.getppid()}.{TOKEN}.part", "movie.part", "a.4194305.part"),
        *(f"a.4194305.{TOKEN}.old", f"a.99999999999999.{TOKEN}.part"),
    ]
    for name in kept:
        (shared / name).touch()
    (shared / f"a.4194305.{TOKEN}.part").touch()  # beyond any process
    (shared / f".b.4194305.{TOKEN}.part" / "inner").mkdir(parents=True)
    atomic.clear_leftovers(shared)
    assert sorted(os.listdir(shared)) == sorted(kept)
