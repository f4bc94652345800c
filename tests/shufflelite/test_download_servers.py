"""Downloads from servers as they are: login pages, cut bodies, odd headers, and no end in sight."""

import gzip
import hashlib
import io
import shutil
import socketserver
import ssl
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.random import mtrand

from shufflelite import download, file_kinds
from shufflelite.download import RemoteFile
from shufflelite.errors import InputError
from tests.shufflelite.serving import served


def make_hdf5(**options: str) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        file["layer/kernel"] = np.arange(50_000, dtype=np.float32)
    return stream.getvalue()


def make_apk() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("AndroidManifest.xml", bytes(200_000))
    return stream.getvalue()


BODY = make_hdf5()
PAGE = b"<html><body>Log in to the network</body></html>"
Reply = bytes | Callable[[Callable[[bytes], None]], None]


def reply(
    body: bytes = BODY, *headers: str, status: str = "200 OK", length: int | str | None = -1
) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Server(socketserver.ThreadingTCPServer):
    """Answers with `replies`, in turn, whatever is asked; the last one again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[Reply] = []
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/x.h5"


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        if isinstance(self.connection, ssl.SSLSocket):
            try:
                self.connection.do_handshake()
            except OSError:  # the client does not trust it
                return
        lines = iter(lambda: self.rfile.readline().decode("latin-1").strip(), "")
        self.server.requests.append("\n".join(lines))
        answers = self.server.replies
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            if isinstance(answer, bytes):
                self.wfile.write(answer)
            else:
                answer(self.wfile.write)
        except OSError:  # the client has left
            pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with served(Server()) as running:
        yield running


def drip(start: bytes, dripped: bytes) -> Callable[[Callable[[bytes], None]], None]:
    def answer(write: Callable[[bytes], None]) -> None:
        write(start)
        for byte in dripped:
            write(bytes([byte]))
            time.sleep(0.05)

    return answer


def endless(write: Callable[[bytes], None]) -> None:
    write(reply(b"", length=None))
    while True:
        write(BODY)


REFUSED = {
    "a login page": (reply(PAGE, "Content-Type: text/html"), r"a web page came"),
    "a login page elsewhere": (
        [
            reply(b"", "Location: /login", status="302 Found"),
            reply(PAGE, "Content-Type: TEXT/HTML"),
        ],
        "a web page came",
    ),
    "a login page as a file": (reply(PAGE), r"expected 100000 to 500000000 bytes, got 47"),
    "a long page as a file": (
        reply(PAGE * 9999),
        r"an HDF5 file, whole, got .* start with b'<html>",
    ),
    "nothing": (reply(b""), "bytes, got 0"),
    "nothing at all": (b"", "closed connection without response"),
    "a gzip encoding": (
        reply(gzip.compress(BODY, mtime=0), "Content-Encoding: gzip"),
        "encoded as 'gzip'",
    ),
    "a gzip body": (
        reply(gzip.compress(np.random.default_rng(0).bytes(200_000), mtime=0)),
        r"b'\\x1f\\x8b",
    ),
    "a cut body": (reply(BODY[:150_000], length=None), "an HDF5 file, whole, got 150000 bytes"),
    "too short a length": (reply(BODY, length=150_000), "an HDF5 file, whole, got 150000 bytes"),
    "too long a length": (reply(BODY, length=len(BODY) + 1), "the connection broke off"),
    "a cut chunk": (
        reply(b"20000\r\n" + BODY[:1000], "Transfer-Encoding: chunked", length=None),
        "the connection broke off",
    ),
    "no chunk": (
        reply(PAGE, "Transfer-Encoding: chunked", length=None),
        "the connection broke off",
    ),
    "no content": (reply(b"", status="204 No Content"), "expected HTTP status 200, got 204"),
    "a part that was not asked for": (
        reply(BODY[5:], "Content-Range: bytes 5-200000/200001", status="206 Partial Content"),
        "bytes from 0 on were asked for, 'bytes 5-200000/200001' came",
    ),
    "an answer in escape sequences": (
        reply(status="403 \x1b]0;hi\x07 no"),
        "HTTP status 403 .* no",
    ),
    "an error without a reason": (reply(status="503"), "HTTP status 503"),
    "a circle": (reply(b"", "Location: /x.h5", status="302 Found"), "HTTP status 302 .* infinite"),
    "a local file": (reply(b"", "Location: file:///etc/passwd", status="302 Found"), "not allowed"),
    "no address": (reply(b"", "Location: http://[", status="301 Moved"), "Invalid IPv6 URL"),
    "no port": (reply(b"", "Location: http://x:y/", status="301 Moved"), "nonnumeric port"),
    "no host": (reply(b"", f"Location: http://{'a' * 70}.b/", status="307 T"), "downloaded"),
    "a port too high": (reply(b"", "Location: http://[::1]:99999/", status="308 P"), "downloaded"),
    "no status": (b"\x00\xff\x1b[2J\r\n\r\n", "cannot be downloaded"),
    "a long header": (reply(BODY, f"X: {'x' * 70_000}"), "got more than 65536 bytes"),
    "many headers": (reply(BODY, *["X: x"] * 200), "got more than 100 headers"),
    "a length below zero": (reply(PAGE, length=-5), "bytes, got 47"),
    "a length in words": (reply(PAGE, length="much"), "bytes, got 47"),
    "no end": (endless, "expected at most 1725000 bytes, more came"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_the_file_is_refused_in_one_line_and_not_kept(
    name: str, server: Server, tmp_path: Path
) -> None:
    replies, message = REFUSED[name]
    server.replies = replies if isinstance(replies, list) else [replies]
    remote = RemoteFile(server.url, 1 if name == "no end" else None, kind=file_kinds.HDF5)
    with pytest.raises(InputError, match=message) as caught:
        download.download(remote, folder=tmp_path, limit_s=30)
    assert "\n" not in str(caught.value)
    assert "download it" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("start", "dripped"),
    [
        (b"", b"HTTP/1.1 200 OK" * 99),
        (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 50),
        (reply(b"", length=len(BODY)), BODY),
        (reply(b"", length=None), BODY),
        (reply(b"", "Transfer-Encoding: chunked", length=None), b"00000000000000" * 9),
    ],
    ids=["status", "headers", "body", "endless body", "chunks"],
)
def test_the_time_limit_holds_however_slowly_bytes_come(
    start: bytes, dripped: bytes, server: Server, tmp_path: Path
) -> None:
    server.replies = [drip(start, dripped)]
    remote = RemoteFile(server.url, kind=file_kinds.HDF5)
    with pytest.raises(InputError, match=r"cannot be downloaded \(not done after 0\.3 s\)"):
        download.download(remote, folder=tmp_path, limit_s=0.3)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("no openssl, which makes a certificate")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    words = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=localhost"
    more = f"-addext subjectAltName=IP:127.0.0.1 -keyout {path} -out {path}.crt"
    subprocess.run(["openssl", *words.split(), *more.split()], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.mark.parametrize(
    ("trusted", "answer", "message"),
    [
        (True, reply(), None),
        (True, drip(reply(b"", length=None), BODY), r"not done after 0\.5 s"),
        (True, drip(b"", b"HTTP/1.1 200 OK" * 9), r"not done after 0\.5 s"),
        (False, reply(), "CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["whole", "slow body", "slow status", "not trusted"],
)
def test_tls_is_verified_and_has_the_same_time_limit(
    trusted: bool,
    answer: Reply,
    message: str | None,
    certificate: Path,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.replies = [answer]
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    remote = RemoteFile(server.url.replace("http:", "https:"), kind=file_kinds.HDF5)
    if message is None:
        assert download.download(remote, folder=tmp_path).read_bytes() == BODY
        return
    with pytest.raises(InputError, match=message):
        download.download(remote, folder=tmp_path, limit_s=0.5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content_range",
    ["bytes 5-200/201", "bytes 0-99/100", "bytes */5", "items 1000-2/3", "", "bytes 10000-2/3"],
)
def test_another_range_than_asked_for_begins_anew(
    content_range: str, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "x.h5.part").write_bytes(BODY[:1000])
    wrong = reply(BODY[5:], f"Content-Range: {content_range}", status="206 Partial Content")
    server.replies = [wrong, reply()]
    remote = RemoteFile(server.url, digest=hashlib.sha256(BODY).hexdigest())
    assert download.download(remote, folder=tmp_path).read_bytes() == BODY
    assert ["Range: bytes=1000-" in request for request in server.requests] == [True, False]


@pytest.mark.parametrize("length", [-1, None])
def test_the_file_itself_is_kept(length: int | None, server: Server, tmp_path: Path) -> None:
    server.replies = [
        reply(b"", "Location: /elsewhere", status="302 Found"),
        reply(length=length),
    ]
    remote = RemoteFile(server.url, kind=file_kinds.HDF5)
    assert download.download(remote, folder=tmp_path).read_bytes() == BODY


def test_a_login_page_that_an_earlier_version_kept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(PAGE * 9999)
    remote = RemoteFile("http://127.0.0.1:1/x.h5", kind=file_kinds.HDF5)
    with pytest.raises(InputError, match=r"an HDF5 file, whole, .*; delete .*/x\.h5 to download"):
        download.download(remote, folder=tmp_path)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (file_kinds.HDF5, BODY),
        (file_kinds.HDF5, make_hdf5(libver="latest")),
        (file_kinds.ELF, Path(mtrand.__file__).read_bytes()),
        (file_kinds.APK, make_apk()),
    ],
)
def test_real_files_are_of_their_kind_and_cut_ones_are_not(
    kind: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert file_kinds.problem(path, kind) is None
    for part in (content[:-1], content[: len(content) // 2], content[:20], content[1:], b"", PAGE):
        path.write_bytes(part)
        assert file_kinds.problem(path, kind), len(part)
