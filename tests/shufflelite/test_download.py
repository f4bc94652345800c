"""Downloads, from a server of our own."""

import errno
import hashlib
import http.server
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shufflelite import download
from shufflelite.download import RemoteFile
from shufflelite.errors import InputError
from tests.shufflelite.serving import served

CONTENT = bytes(range(256)) * 4000
HALF = len(CONTENT) // 2


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under /ok.h5 as RFC 9110 says, and else 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True  # whether it knows them
        self.breaks_off = False  # in the middle of what it announced
        self.requested: list[str | None] = []  # their Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ok.h5"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        requested = self.headers["Range"]
        server.requested.append(requested)
        if self.path != "/ok.h5":
            self.send_error(404)
            return
        start = 0
        if requested and server.ranges:
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : HALF if server.breaks_off else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[Server]:
    with served(Server()) as running:
        yield running


def sha256(content: bytes = CONTENT) -> str:
    return hashlib.sha256(content).hexdigest()


def break_off(server: Server, remote: RemoteFile, folder: Path) -> str:
    """Receives one half, and returns what the error says."""
    server.breaks_off = True
    with pytest.raises(InputError) as caught:
        download.download(remote, folder=folder)
    server.breaks_off = False
    return str(caught.value)


@pytest.mark.parametrize(
    ("digest", "algorithm"),
    [
        (None, "sha256"),
        (sha256(), "sha256"),
        (sha256()[:8], "sha256"),
        (hashlib.md5(CONTENT).hexdigest(), "md5"),
    ],
)
def test_a_download_is_kept_and_not_repeated(
    digest: str | None, algorithm: str, server: Server, tmp_path: Path
) -> None:
    remote = RemoteFile(server.url, digest=digest, algorithm=algorithm)
    for _ in range(2):
        path = download.download(remote, folder=tmp_path / "cache")
        assert path == tmp_path / "cache" / "ok.h5"
        assert path.read_bytes() == CONTENT
    assert server.requested == [None]
    assert list(path.parent.iterdir()) == [path]


def test_a_broken_download_is_continued(server: Server, tmp_path: Path) -> None:
    remote = RemoteFile(server.url, digest=sha256())
    message = break_off(server, remote, tmp_path)
    assert "(the connection broke off); try again to continue, or download it" in message

    path = download.download(remote, folder=tmp_path)

    assert server.requested == [None, f"bytes={HALF}-"]
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_hash_a_broken_download_begins_anew(server: Server, tmp_path: Path) -> None:
    message = break_off(server, RemoteFile(server.url), tmp_path)
    assert "(the connection broke off); download it" in message
    assert list(tmp_path.iterdir()) == []
    path = download.download(RemoteFile(server.url), folder=tmp_path)
    assert server.requested == [None, None]
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    remote = RemoteFile(server.url, digest=sha256())
    server.ranges = False
    break_off(server, remote, tmp_path)
    assert download.download(remote, folder=tmp_path).read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [tmp_path / "ok.h5"]


@pytest.mark.parametrize("part", [bytes(HALF), CONTENT[::-1][:HALF]])
def test_the_hash_detects_a_wrong_part_which_is_removed(
    part: bytes, server: Server, tmp_path: Path
) -> None:
    remote = RemoteFile(server.url, digest=sha256())
    (tmp_path / "ok.h5.part").write_bytes(part)
    with pytest.raises(InputError, match=f"expected SHA-256 {sha256()}, got .*; try again"):
        download.download(remote, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert download.download(remote, folder=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
def test_a_part_with_nothing_to_continue_begins_anew(
    part: bytes, server: Server, tmp_path: Path
) -> None:
    remote = RemoteFile(server.url, digest=sha256())
    (tmp_path / "ok.h5.part").write_bytes(part)  # killed just before the last step
    assert download.download(remote, folder=tmp_path).read_bytes() == CONTENT
    assert server.requested == [f"bytes={len(part)}-", None]
    assert list(tmp_path.iterdir()) == [tmp_path / "ok.h5"]


def test_a_link_planted_for_the_part_is_not_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(CONTENT[:HALF])
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "ok.h5.part").symlink_to(tmp_path / "precious")
    path = download.download(RemoteFile(server.url, digest=sha256()), folder=tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert not path.is_symlink()
    assert (tmp_path / "precious").read_bytes() == CONTENT[:HALF]


def test_downloads_at_the_same_time_make_one_request(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    remote = RemoteFile(server.url, digest=sha256())
    threads = [
        threading.Thread(target=download.download, args=(remote,), kwargs={"folder": tmp_path})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requested) == 1
    assert (tmp_path / "ok.h5").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("digest", "algorithm", "expected"),
    [
        ("0" * 64, "sha256", f"expected SHA-256 0+, got {sha256()}; try again"),
        ("0" * 8, "sha256", f"expected SHA-256 00000000, got {sha256()}; try again"),
        ("0" * 32, "md5", "expected MD5 0+, got [0-9a-f]{32}; try again"),
    ],
)
def test_a_file_with_another_hash_leaves_nothing(
    digest: str, algorithm: str, expected: str, server: Server, tmp_path: Path
) -> None:
    remote = RemoteFile(server.url, digest=digest, algorithm=algorithm)
    with pytest.raises(InputError, match=expected):
        download.download(remote, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_message_for_an_absent_file_says_where_to_put_it(
    server: Server, tmp_path: Path
) -> None:
    remote = RemoteFile(server.url.replace("ok", "absent"), 17)
    with pytest.raises(InputError) as caught:
        download.download(remote, folder=tmp_path)
    assert str(caught.value) == (
        f"{remote.url}: cannot be downloaded (HTTP status 404 Not Found); download it "
        "(about 17 MB) with a browser, on another machine if this one is offline, and save it as "
        f"{tmp_path / 'absent.h5'}."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_the_download_resumes_later(
    server: Server, tmp_path: Path
) -> None:
    remote = RemoteFile(server.url, digest=sha256(), size_mb=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, before[1]))
        with pytest.raises(InputError) as caught:
            download.download(remote, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == (
        f"{tmp_path}: too little room for {server.url} (about 1 MB) (File too large); free some, "
        "or set XDG_CACHE_HOME to another folder, and try again."
    )
    assert not (tmp_path / "ok.h5").exists()
    assert download.download(remote, folder=tmp_path).read_bytes() == CONTENT
    assert server.requested[1] == f"bytes={HALF}-"
    assert [path.name for path in tmp_path.iterdir()] == ["ok.h5"]


def test_without_network_the_message_names_url_and_path(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/x.h5"
        with pytest.raises(InputError) as caught:
            download.download(RemoteFile(address), folder=tmp_path)
    assert str(caught.value) == (
        f"{address}: cannot be downloaded ([Errno {errno.ECONNREFUSED}] Connection refused); "
        "download it with a browser, on another machine if this one is offline, and save it as "
        f"{tmp_path / 'x.h5'}."
    )


def test_a_file_saved_by_hand_is_used_without_network(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(CONTENT)
    remote = RemoteFile("http://127.0.0.1:1/x.h5", digest=sha256())
    assert download.download(remote, folder=tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_in_the_cache_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"half")
    remote = RemoteFile("http://127.0.0.1:1/x.h5", digest="0" * 64)
    with pytest.raises(InputError, match=r"delete .*x\.h5 to download it again"):
        download.download(remote, folder=tmp_path)


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/cache: cannot be made .* set XDG_CACHE_HOME"):
        download.download(RemoteFile("http://127.0.0.1:1/x.h5"), folder=tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("configured", "expected"), [("/x", "/x"), ("", "~/.cache"), ("relative", "~/.cache")]
)
def test_the_cache_follows_xdg(
    configured: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", configured)
    assert download.cache_folder() == Path(os.path.expanduser(expected)) / "shufflelite"
