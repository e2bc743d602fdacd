"""The download against a local server: what is right is installed, all else changes nothing."""

import contextlib
import http.server
import io
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.core import errors, paths
from harness.core.errors import UserError
from harness.demos import __main__ as demos_main
from harness.demos import download, source
from harness.demos.download import DownloadError
from ibc.data.demos import fingerprint

STORE = "pusht/pusht_cchi_v7_replay.zarr"


@pytest.fixture(scope="module")
def store(tmp_path_factory, write_demos) -> Path:
    path = tmp_path_factory.mktemp("published") / STORE
    write_demos(path, images="uint8")
    return path


def zipped(store: Path, extra: Callable[[zipfile.ZipFile], None] = lambda archive: None) -> bytes:
    """The published zip's layout: one folder, in it the store; `extra` adds what is wrong."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pusht/", b"")
        archive.writestr("__MACOSX/._pusht", b"of no use")
        for path in sorted(store.rglob("*")):
            archive.write(path, f"{STORE}/{path.relative_to(store)}")
        extra(archive)
    return content.getvalue()


@pytest.fixture
def server(monkeypatch) -> Iterator[Callable[..., str]]:
    """serve(body, ...) -> the address that answers with it; `pause` seconds after each `piece`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answer = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            for name, value in answer["headers"].items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for start in range(0, len(answer["body"]), answer["piece"]):
                    self.wfile.write(answer["body"][start : start + answer["piece"]])
                    self.wfile.flush()
                    time.sleep(answer["pause"])
                answer["hold"].wait(10)

        def log_message(self, *arguments):
            pass

    def serve(body=b"", status=200, headers=None, hold=False, piece=2**30, pause=0.0):
        released = threading.Event()
        if not hold:
            released.set()
        lengths = {"Content-Length": str(len(body))} if headers is None else headers
        answer.update(body=body, status=status, headers=lengths, hold=released)
        answer.update(piece=piece, pause=pause)
        return f"http://127.0.0.1:{running.server_address[1]}/pusht.zip"

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield serve
        answer["hold"].set() if answer else None
        running.shutdown()
        thread.join()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".download.lock")


def test_what_is_right_is_installed(tmp_path, server, store):
    body = zipped(store)
    seen = []
    path = download.download(
        server(body),
        folder=tmp_path / "data",
        expected=fingerprint(store),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert path == tmp_path / "data" / source.DOWNLOADED
    assert fingerprint(path) == fingerprint(store)
    assert left_in(tmp_path / "data") == [source.DOWNLOADED]
    assert seen[-1] == (len(body), len(body))
    assert source.resolve_source(folder=tmp_path / "data").kind == "downloaded"


def test_a_server_that_does_not_say_the_length(tmp_path, server, store):
    url = server(zipped(store), headers={})
    assert download.download(url, folder=tmp_path, expected=fingerprint(store)).is_dir()


def test_an_older_data_set_is_replaced_only_by_a_right_one(tmp_path, server, store, write_demos):
    write_demos(tmp_path / source.DOWNLOADED, seed=5)
    old = fingerprint(tmp_path / source.DOWNLOADED)
    with pytest.raises(DownloadError, match="another data set"):
        download.download(server(zipped(store)), folder=tmp_path, expected="f" * 64)
    assert fingerprint(tmp_path / source.DOWNLOADED) == old
    download.download(server(zipped(store)), folder=tmp_path, expected=fingerprint(store))
    assert fingerprint(tmp_path / source.DOWNLOADED) == fingerprint(store)
    assert left_in(tmp_path) == [source.DOWNLOADED]


def entry(name: str, kind: int = 0, content: bytes = b"x") -> Callable[[zipfile.ZipFile], None]:
    def add(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = kind << 28
        archive.writestr(info, content)

    return add


def twice(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        entry(f"{STORE}/.zgroup")(archive)


HOSTILE = {
    "a path upwards": (entry("../escaped"), "leaves its folder: '../escaped'"),
    "a path upwards in the middle": (entry("pusht/../../escaped"), "leaves its folder"),
    "an absolute path": (entry("/tmp/escaped"), "leaves its folder"),
    "a Windows path": (entry("pusht\\..\\..\\escaped"), "leaves its folder"),
    "a link": (entry("pusht/link", kind=10, content=b"/etc"), "a link or a device: 'pusht/link'"),
    "a device": (entry("pusht/device", kind=2), "a link or a device"),
    "the same name twice": (twice, "the same name twice"),
    "a file that is a folder": (entry("pusht"), "the same name twice"),
    "two stores": (entry("pusht/b.zarr/.zgroup", content=b"{}"), "one zarr store, it holds 2"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_zip_is_refused(tmp_path, server, store, case):
    extra, said = HOSTILE[case]
    with pytest.raises(DownloadError, match=said.replace("\\", ".")):
        download.download(
            server(zipped(store, extra)), folder=tmp_path / "data", expected=fingerprint(store)
        )
    assert left_in(tmp_path / "data") == []
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert not Path("/tmp/escaped").exists()


def test_a_zip_that_unpacks_to_too_much(tmp_path, server, store, monkeypatch):
    body = zipped(store, entry("pusht/zeros", content=bytes(10**7)))
    monkeypatch.setattr(download, "MAX_UNPACKED_BYTES", 10**7)
    with pytest.raises(DownloadError, match=r"the zip unpacks to .* bytes, at most 10000000"):
        download.download(server(body), folder=tmp_path)
    monkeypatch.setattr(download, "MAX_ENTRIES", 10)
    with pytest.raises(DownloadError, match="entries, at most 10"):
        download.download(server(body), folder=tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("said_before", [True, False])
def test_a_file_that_is_too_large(tmp_path, server, store, monkeypatch, said_before):
    monkeypatch.setattr(download, "MAX_ZIP_BYTES", 1000)
    url = server(zipped(store), headers=None if said_before else {})
    with pytest.raises(DownloadError, match="more than 1000 bytes"):
        download.download(url, folder=tmp_path)
    assert left_in(tmp_path) == []


def test_a_zip_torn_anywhere(tmp_path, server, store):
    whole = zipped(store)
    for eighth in range(8):
        body = whole[: len(whole) * eighth // 8]
        with pytest.raises(DownloadError, match="not a whole zip"):
            download.download(server(body), folder=tmp_path, expected=fingerprint(store))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    with pytest.raises(DownloadError, match=r"not a whole zip|another data set|broken data set"):
        download.download(server(bytes(flipped)), folder=tmp_path, expected=fingerprint(store))
    assert left_in(tmp_path) == []


def test_a_zip_of_other_methods_or_names_that_are_no_text(tmp_path, server):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w", method) as made:
            made.writestr("a", b"x" * 1000)
        with pytest.raises(DownloadError, match="must be stored or deflated"):
            download.download(server(body.getvalue()), folder=tmp_path)
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as made:
        made.writestr("\u00e9", b"x")  # is marked as UTF-8
    broken = body.getvalue().replace("\u00e9".encode(), b"\xff\xff")
    with pytest.raises(DownloadError, match="not a whole zip"):
        download.download(server(broken), folder=tmp_path)


def test_a_store_that_lacks_a_chunk(tmp_path, server, store, write_demos):
    write_demos(tmp_path / STORE, images="uint8")
    (tmp_path / STORE / "data/action/2.0").unlink()
    with pytest.raises(DownloadError, match=r"broken data set: .*data/action: 1 of 7 chunks"):
        download.download(
            server(zipped(tmp_path / STORE)), folder=tmp_path / "data", expected=fingerprint(store)
        )


def test_a_server_that_drips(tmp_path, server, store):
    url = server(zipped(store), piece=1, pause=0.02)
    with pytest.raises(DownloadError, match=r"too slow, \d+ bytes in 0 s; try again"):
        download.download(url, folder=tmp_path, timeout=0.3)
    assert left_in(tmp_path) == []


def test_a_server_that_falls_silent(tmp_path, server):
    url = server(b"PK", headers={"Content-Length": "1000"}, hold=True)
    with pytest.raises(DownloadError, match=r"the connection broke: .*timed out; try again"):
        download.download(url, folder=tmp_path, timeout=0.3)


def test_one_download_at_a_time(tmp_path, server, store):
    url = server(zipped(store))
    with download._workplace(tmp_path), pytest.raises(UserError, match="one download at a time"):
        download.download(url, folder=tmp_path, expected=fingerprint(store))
    assert download.download(url, folder=tmp_path, expected=fingerprint(store)).is_dir()


CHILD = """
import signal, sys
from pathlib import Path
from harness.demos import download
def stop(store, expected):
    print("unpacked", flush=True)
    signal.pause()
download._verify = stop
download.download(sys.argv[1], folder=Path(sys.argv[2]))
"""


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path, server, store):
    url = server(zipped(store))
    arguments = [sys.executable, "-c", CHILD, url, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "unpacked\n"
        child.kill()
    assert left_in(tmp_path) == [".download"]
    download.download(url, folder=tmp_path, expected=fingerprint(store))
    assert left_in(tmp_path) == [source.DOWNLOADED]


def test_a_folder_that_cannot_be_written(tmp_path, server, store):
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match="data must be writable, with free space"):
        download.download(server(zipped(store)), folder=tmp_path / "data")


@pytest.fixture
def command(tmp_path, monkeypatch, capfd, store) -> Callable[..., tuple[int, str, str]]:
    """Runs `python -m harness.demos download ...` in process on a data folder of its own."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(download, "FINGERPRINT", fingerprint(store))
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = errors.run(lambda: demos_main.main(["download", *arguments]))
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_the_command_installs_once(server, store, command, tmp_path):
    url = server(zipped(store))
    code, out, _ = command("--url", url)
    assert code == 0
    assert out.startswith(f"downloading {url}\n")
    assert f"installed and verified: {tmp_path / 'data' / source.DOWNLOADED}" in out
    code, out, _ = command("--url", server(status=500))
    assert (code, out) == (0, f"already installed: {tmp_path / 'data' / source.DOWNLOADED}\n")
    code, out, _ = command("--url", server(zipped(store)), "--force")
    assert code == 0
    assert "installed and verified" in out


def test_the_command_does_not_replace_something_else(command, tmp_path, write_demos):
    write_demos(tmp_path / "data" / source.DOWNLOADED)
    code, _, err = command("--url", "http://127.0.0.1:1/")
    assert code == 2
    assert err.endswith("is another data set; --force replaces it\n")


def test_every_failure_of_the_command_is_one_line(server, store, command, tmp_path):
    cases: dict[str, tuple[Callable[[], str], int, str]] = {
        "404": (lambda: server(status=404), 1, "the server answered 404 Not Found"),
        "500": (lambda: server(b"oh", status=500), 1, "the server answered 500"),
        "refused": (lambda: "http://127.0.0.1:1/", 1, "cannot be reached: "),
        "no such host": (lambda: "http://[::/x", 1, "cannot be reached: "),
        "cut short": (
            lambda: server(zipped(store)[:999], headers={"Content-Length": "5000"}),
            1,
            "the connection ended after 999 of 5000 bytes",
        ),
        "no zip": (lambda: server(b"<html>moved</html>"), 1, "not a whole zip"),
        "zip slip": (lambda: server(zipped(store, entry("../x"))), 1, "leaves its folder"),
        "redirect": (lambda: server(status=302, headers={"Location": "file:///x"}), 1, "302"),
        "not HTTP": (lambda: "file:///etc/passwd", 2, "--url must begin with http:// or https://"),
        "no address": (lambda: "pusht.zip", 2, "--url must begin with"),
    }
    for case, (address, wanted, said) in cases.items():
        code, _, err = command("--url", address())
        assert (case, code) == (case, wanted)
        assert said in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        if (tmp_path / "data").exists():
            assert left_in(tmp_path / "data") == []
