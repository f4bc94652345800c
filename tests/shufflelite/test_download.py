"""Official weights, from a server of our own."""

import errno
import hashlib
import http.server
import os
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keras_models import registry
from shufflelite import download
from shufflelite.download import Official
from shufflelite.errors import InputError

CONTENT = bytes(range(256)) * 1000
HALF = len(CONTENT) // 2


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under /ok.h5 as RFC 9110 says, and else 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.version: tuple[str, str] | None = ("ETag", '"1"')
        self.ranges = True  # whether it knows them
        self.breaks_off = False  # in the middle of what it announced
        self.requested: list[tuple[str | None, str | None]] = []  # Range, If-Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ok.h5"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted, condition = self.headers["Range"], self.headers["If-Range"]
        server.requested.append((wanted, condition))
        if self.path != "/ok.h5":
            self.send_error(404)
            return
        start = 0
        if wanted and server.ranges and server.version and condition == server.version[1]:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.content)}")
        if server.version:
            self.send_header(*server.version)
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
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def sha256(content: bytes = CONTENT) -> str:
    return hashlib.sha256(content).hexdigest()


def break_off(server: Server, official: Official, folder: Path) -> str:
    """Receives one half, and returns what the error says."""
    server.breaks_off = True
    with pytest.raises(InputError) as caught:
        download.download(official, folder=folder)
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
    official = Official(server.url, digest=digest, algorithm=algorithm)
    for _ in range(2):
        path = download.download(official, folder=tmp_path / "cache")
        assert path == tmp_path / "cache" / "ok.h5"
        assert path.read_bytes() == CONTENT
    assert server.requested == [(None, None)]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "version", [("ETag", '"1"'), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")]
)
def test_a_broken_download_is_continued(
    version: tuple[str, str], server: Server, tmp_path: Path
) -> None:
    official = Official(server.url, digest=sha256())
    server.version = version
    message = break_off(server, official, tmp_path)
    assert "try again to continue" in message

    path = download.download(official, folder=tmp_path)

    assert server.requested == [(None, None), (f"bytes={HALF}-", version[1])]
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", [None, ("ETag", 'W/"1"')])
def test_without_a_strong_version_a_broken_download_begins_anew(
    version: tuple[str, str] | None, server: Server, tmp_path: Path
) -> None:
    server.version = version
    message = break_off(server, Official(server.url), tmp_path)
    assert "continue" not in message
    assert list(tmp_path.iterdir()) == []
    path = download.download(Official(server.url), folder=tmp_path)
    assert server.requested == [(None, None)] * 2
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    break_off(server, Official(server.url), tmp_path)
    assert download.download(Official(server.url), folder=tmp_path).read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [tmp_path / "ok.h5"]


def test_a_file_that_changed_meanwhile_is_not_glued_together(
    server: Server, tmp_path: Path
) -> None:
    break_off(server, Official(server.url), tmp_path)
    server.content, server.version = CONTENT[::-1], ("ETag", '"2"')
    assert download.download(Official(server.url), folder=tmp_path).read_bytes() == CONTENT[::-1]


def test_a_part_that_is_no_beginning_is_found_out_by_the_hash_and_removed(
    server: Server, tmp_path: Path
) -> None:
    official = Official(server.url, digest=sha256())
    break_off(server, official, tmp_path)
    (tmp_path / "ok.h5.part").write_bytes(bytes(HALF))
    with pytest.raises(InputError, match=f"expected SHA-256 {sha256()}, got .*; try again"):
        download.download(official, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert download.download(official, folder=tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_no_error(server: Server, tmp_path: Path) -> None:
    break_off(server, Official(server.url), tmp_path)
    (tmp_path / "ok.h5.part").write_bytes(CONTENT)  # killed just before the last step
    assert download.download(Official(server.url), folder=tmp_path).read_bytes() == CONTENT
    assert [wanted for wanted, _ in server.requested] == [None, f"bytes={len(CONTENT)}-", None]


def test_downloads_at_the_same_time_make_one_request(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    official = Official(server.url, digest=sha256())
    threads = [
        threading.Thread(target=download.download, args=(official,), kwargs={"folder": tmp_path})
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
    official = Official(server.url, digest=digest, algorithm=algorithm)
    with pytest.raises(InputError, match=expected):
        download.download(official, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_absent_file_is_told_with_where_to_put_it(server: Server, tmp_path: Path) -> None:
    official = Official(server.url.replace("ok", "absent"), 17)
    with pytest.raises(InputError) as caught:
        download.download(official, folder=tmp_path)
    assert str(caught.value) == (
        f"{official.url}: cannot be downloaded (Not Found); download it (about 17 MB) with a "
        "browser, on another machine if this one is offline, and save it as "
        f"{tmp_path / 'absent.h5'}."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_the_download_goes_on_elsewhere_or_later(
    server: Server, tmp_path: Path
) -> None:
    official = Official(server.url, digest=sha256(), size_mb=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, before[1]))
        with pytest.raises(InputError) as caught:
            download.download(official, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == (
        f"{tmp_path}: too little room for {server.url} (about 1 MB) (File too large); free some, "
        "or set XDG_CACHE_HOME to another folder, and try again."
    )
    assert not (tmp_path / "ok.h5").exists()
    assert download.download(official, folder=tmp_path).read_bytes() == CONTENT
    assert server.requested[1] == (f"bytes={HALF}-", '"1"')
    assert [path.name for path in tmp_path.iterdir()] == ["ok.h5"]


def test_without_network_the_message_names_url_and_path(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/x.h5"
        with pytest.raises(InputError) as caught:
            download.download(Official(address), folder=tmp_path)
    assert str(caught.value) == (
        f"{address}: cannot be downloaded ([Errno {errno.ECONNREFUSED}] Connection refused); "
        "download it with a browser, on another machine if this one is offline, and save it as "
        f"{tmp_path / 'x.h5'}."
    )


def test_a_file_saved_by_hand_is_used_without_network(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(CONTENT)
    official = Official("http://127.0.0.1:1/x.h5", digest=sha256())
    assert download.download(official, folder=tmp_path).read_bytes() == CONTENT


def test_a_wrong_file_in_the_cache_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"half")
    official = Official("http://127.0.0.1:1/x.h5", digest="0" * 64)
    with pytest.raises(InputError, match=r"delete .*x\.h5 to download it again"):
        download.download(official, folder=tmp_path)


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/cache: cannot be made .* set XDG_CACHE_HOME"):
        download.download(Official("http://127.0.0.1:1/x.h5"), folder=tmp_path / "file" / "cache")


KERAS_NETWORKS = {
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "mobilenet_v3_small": "MobileNetV3Small",
    "efficientnet_v2_b0": "EfficientNetV2B0",
}


@pytest.mark.parametrize("name", KERAS_NETWORKS)
def test_official_weights_are_those_that_keras_itself_downloads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tf_keras

    class AskedError(Exception):
        pass

    def get_file(name: str, origin: str, file_hash: str | None = None, **kwargs: object) -> None:
        raise AskedError(origin, file_hash)

    build = getattr(tf_keras.applications, KERAS_NETWORKS[name])
    monkeypatch.setattr(sys.modules[build.__module__].data_utils, "get_file", get_file)
    keys = [key for key in download.OFFICIAL if key[0] == name]
    for _, resolution, fixed in {keys[0], keys[-1]}:  # each takes a second to build
        options = dict(fixed)
        arguments = {"alpha" if key == "width" else key: options[key] for key in options}
        with pytest.raises(AskedError) as asked:
            build(input_shape=(resolution, resolution, 3), **arguments)
        found = download.find(name, resolution=resolution, options=options)
        assert (found.url, found.digest) == asked.value.args
        assert found.algorithm == "md5" or found.digest is None
        tf_keras.backend.clear_session()


def test_every_official_file_is_of_a_published_variant() -> None:
    for name, resolution, fixed in download.OFFICIAL:
        published = [
            (p.resolution, p.options.items() <= dict(fixed).items())
            for p in registry.find(name).published
        ]
        assert (resolution, True) in published


def test_the_sizes_are_those_of_the_parameters() -> None:
    # Four bytes each; statistics of batch norms and the names add a few percent.
    for (name, _, fixed), official in download.OFFICIAL.items():
        sizes_mb = [
            4e-6 * p.params
            for p in registry.find(name).published
            if p.options.items() <= dict(fixed).items()
        ]
        assert any(official.size_mb == pytest.approx(s, rel=0.08, abs=0.6) for s in sizes_mb)


def test_options_left_open_are_those_of_the_builder() -> None:
    default = download.find("mobilenet_v3_large", resolution=224, options={})
    assert default.url.endswith("v3_large_224_1.0_float.h5")
    assert default == download.find(
        "mobilenet_v3_large", resolution=224, options={"width": None, "stem": None}
    )
    minimalistic = download.find(
        "mobilenet_v3_large", resolution=224, options={"minimalistic": True}
    )
    assert minimalistic.url.endswith("v3_large_minimalistic_224_1.0_float.h5")


@pytest.mark.parametrize(
    ("name", "resolution", "options", "message"),
    [
        (
            "mobilenet_v1",
            224,
            {"width": 0.3},
            "mobilenet_v1 width=0.3 at 224 has no official ImageNet weights; there are: width=1.0 "
            "at 224, 192, 160, 128; width=0.75 at ",
        ),
        ("efficientnet_v2_s", 224, {}, "efficientnet_v2_s at 224 has no .* there are: at 384."),
        ("alexnet", 224, {}, "alexnet has no official ImageNet weights that can be downloaded."),
    ],
)
def test_networks_without_official_weights_are_told_which_have_some(
    name: str, resolution: int, options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        download.find(name, resolution=resolution, options=options)


@pytest.mark.parametrize(
    ("configured", "expected"), [("/x", "/x"), ("", "~/.cache"), ("relative", "~/.cache")]
)
def test_the_cache_follows_xdg(
    configured: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", configured)
    assert download.cache_folder() == Path(os.path.expanduser(expected)) / "shufflelite"
