"""`benchrouter download` against a server on this machine that fails in every way."""

from __future__ import annotations

import email.utils
import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.utils import close_session
from local_server import (
    COMMIT,
    Server,
    answer,
    chunked,
    crc32c,
    cut_after,
    last_chunk,
    page,
    redirect,
    reset_in_a_chunk,
    serve,
    stall_after,
    started,
    without_ranges,
)
from typer.testing import CliRunner

from benchrouter.cli import app, output
from benchrouter.files.lock import locked
from benchrouter.tables.download import folder as download_folder
from benchrouter.tables.download import web as download_web
from benchrouter.tables.download.fetching import checksum_of, fetch
from benchrouter.tables.download.listing import Remote, list_helm, list_hub
from benchrouter.tables.download.sources import HELM, MIXINSTRUCT, ROUTERBENCH, SOURCES
from benchrouter.tables.download.web import LONGEST_WAIT, DownloadRefused, Stopped, Web
from benchrouter.tables.formats.routerbench import conversion

ROOT = Path(__file__).resolve().parents[2]
CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
NOW = 1_700_000_000.0
BLOCK = 100_000  # asked for at a time
MIX = "llm-blender/mix-instruct"
RUNS = "classic/benchmark_output/runs/v0.3.0"


@pytest.fixture
def server(monkeypatch):
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (*proxies, "SSL_CERT_FILE", "SSL_CERT_DIR", "HF_TOKEN", "BENCHROUTER_CACHE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    served = Server()
    running = started(served)
    monkeypatch.setattr(download_web, "BLOCK_BYTES", BLOCK)
    close_session()  # of huggingface_hub, which keeps proxies and certificates
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("BENCHROUTER_HELM_URL", served.url)
    yield served
    running.shutdown()
    running.server_close()


class Clock:
    """Waits are noted, not waited."""

    def __init__(self, timeout=5):
        self.waits = []
        self.said = []
        self.web = Web(
            sleep=self.waits.append, now=lambda: NOW, tell=self.said.append, timeout=timeout
        )


@pytest.fixture
def clock():
    return Clock()


def a_file(server, content=CONTENT, *, checksum="sha256:", **further):
    """A file on the server, and its description."""
    server.files["/a.bin"] = content
    known = None if checksum is None else f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Remote("a.bin", f"{server.url}/a.bin", len(content), known, **further)


def run_fetch(remote, target, clock):
    """Fetch; returns (resumed, sum of what progress was told)."""
    steps = []
    resumed = fetch(remote, target, web=clock.web, advance=steps.append)
    return resumed, sum(steps)


def partial_file(folder, name="a.bin"):
    """The one hidden file of what has been received of a file."""
    (found,) = folder.glob(f".{name}.*.partial")
    return found


def break_off(server, folder, clock, remote):
    """Fetch one block of it, and no more."""
    server.script["/a.bin"] = [serve, *[answer(503)] * 6]
    with pytest.raises(DownloadRefused, match="503"):
        run_fetch(remote, folder / "a.bin", clock)


def hidden(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


def call(*arguments):
    return CliRunner().invoke(app, ["download", *map(str, arguments)])


# --- one file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "sent"), [(0, []), (1, [1]), (300_000, [100_000] * 3)])
def test_a_file_arrives_in_blocks(server, clock, tmp_path, size, sent):
    remote = a_file(server, CONTENT[:size])
    target = tmp_path / "new" / "a.bin"
    assert run_fetch(remote, target, clock) == (False, size)
    assert target.read_bytes() == CONTENT[:size]
    assert os.listdir(target.parent) == ["a.bin"]
    assert [(s.status, s.sent) for s in server.seen] == [(206, n) for n in sent]
    assert clock.waits == []


def test_after_a_dropped_connection_the_block_is_sent_again(server, clock, tmp_path):
    remote = a_file(server)
    server.script["/a.bin"] = [cut_after(60_000), serve, cut_after(50_000), cut_after(1)]
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 300_000)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [s.headers["Range"] for s in server.seen] == [
        "bytes=0-99999", "bytes=0-99999", "bytes=100000-199999", "bytes=100000-199999",
        "bytes=100000-199999", "bytes=200000-300000",  # a byte more, which must not be there
    ]  # fmt: skip
    assert clock.waits == [1, 1, 2]  # a block that arrives ends a row of failures
    assert "; next attempt in 1 s" in clock.said[0]


def test_a_connection_that_drips_and_stalls_is_dropped_and_gone_on_with(server, tmp_path):
    remote, clock = a_file(server), Clock(timeout=0.2)
    until = threading.Event()
    server.script["/a.bin"] = [stall_after(4_000, until)]
    try:
        assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 300_000)
    finally:
        until.set()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.seen) == 4
    assert "no byte came in time" in clock.said[0]


def test_a_server_that_ignores_ranges_sends_no_more_than_a_block(server, clock, tmp_path):
    server.script["/a.bin"] = [without_ranges] * 9
    remote = a_file(server, CONTENT[:99_000])
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 99_000)
    with pytest.raises(ValueError, match=r"a\.bin: .*doesn't appear to support range requests"):
        run_fetch(a_file(server), tmp_path / "b.bin", clock)
    assert os.listdir(tmp_path) != ["a.bin"] and not (tmp_path / "b.bin").exists()


@pytest.mark.parametrize("checksum", ["sha256:", None])
def test_a_file_that_changed_between_two_runs_is_never_mixed(server, clock, tmp_path, checksum):
    break_off(server, tmp_path, clock, a_file(server, checksum=checksum))
    assert partial_file(tmp_path).read_bytes() == CONTENT[:100_000]
    assert run_fetch(a_file(server, OTHER, checksum=checksum), tmp_path / "a.bin", clock) == (
        False,
        300_000,
    )
    assert (tmp_path / "a.bin").read_bytes() == OTHER
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_file_without_a_checksum_is_begun_anew(server, clock, tmp_path):
    remote = a_file(server, checksum=None)
    break_off(server, tmp_path, clock, remote)
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 300_000)


def test_a_part_of_another_file_is_found_out_by_the_checksum(server, clock, tmp_path):
    remote = a_file(server)
    break_off(server, tmp_path, clock, remote)
    partial_file(tmp_path).write_bytes(OTHER[:100_000])  # damaged on the disk
    steps = []
    assert fetch(remote, tmp_path / "a.bin", web=clock.web, advance=steps.append) is False
    assert sum(steps) == 200_000  # with the 100,000 that the part was counted as
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [s.sent for s in server.requests_of("a.bin")][-5:] == [100_000] * 5


def test_blocks_of_two_files_are_found_out(server, clock, tmp_path):
    remote = a_file(server)

    def change(handler, seen):
        server.files["/a.bin"] = OTHER
        serve(handler, seen)

    server.script["/a.bin"] = [serve, change]
    with pytest.raises(ValueError, match="found sha256:"):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert os.listdir(tmp_path) == []


def test_a_part_longer_than_the_file_is_thrown_away(server, clock, tmp_path):
    remote = a_file(server)
    break_off(server, tmp_path, clock, remote)
    partial_file(tmp_path).write_bytes(CONTENT + b"x")
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 300_000)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_names_both_and_leaves_nothing(server, clock, tmp_path):
    remote = a_file(server)
    server.files["/a.bin"] = OTHER
    found, expected = (hashlib.sha256(c).hexdigest() for c in (OTHER, CONTENT))
    with pytest.raises(ValueError, match=f"found sha256:{found}, expected sha256:{expected}"):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert os.listdir(tmp_path) == []
    assert len(server.seen) == 3


@pytest.mark.parametrize("checksum", ["sha256:", None])
def test_a_file_that_is_longer_than_listed(server, clock, tmp_path, checksum):
    remote = a_file(server, checksum=checksum)
    server.files["/a.bin"] = CONTENT + b"more"
    with pytest.raises(ValueError, match=r"a.bin: found more than the 300,000 bytes listed"):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert not (tmp_path / "a.bin").exists()


def test_a_file_that_is_shorter_than_listed(server, clock, tmp_path):
    remote = a_file(server)
    server.files["/a.bin"] = CONTENT[:150_000]
    words = "given up after 6 failures.*found 50,000 bytes in answer to a request for 100,000"
    with pytest.raises(DownloadRefused, match=words):
        run_fetch(remote, tmp_path / "a.bin", clock)


def test_a_body_without_a_length_that_does_not_end_is_cut(server, clock, tmp_path):
    remote = a_file(server, CONTENT[:1000])

    def endless(handler, seen):
        handler.close_connection = True
        handler.begin(seen, 200, {})
        handler.body(seen, CONTENT)

    server.script["/a.bin"] = [endless]
    with pytest.raises(ValueError, match="found more than the 1,000 bytes listed"):
        run_fetch(remote, tmp_path / "a.bin", clock)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, r"404 Not Found: nothing is there; .* \(look there\)"),
        (410, r"410 Gone: nothing is there"),
        (403, r"403 Forbidden: .*HF_TOKEN.*proxy"),
        (401, r"401 Unauthorized: .*HF_TOKEN"),
        (400, r"400 Bad Request \(look there\)"),
    ],
)
def test_a_refusal_is_not_tried_again_and_names_the_address(server, tmp_path, status, words):
    remote = a_file(server)
    server.script["/a.bin"] = [answer(status)]
    web = Web(hint="look there")
    with pytest.raises(DownloadRefused, match=f"^{re.escape(remote.url)}: {words}"):
        fetch(remote, tmp_path / "a.bin", web=web, advance=lambda n: None)
    assert len(server.seen) == 1
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("7", 7),
        (email.utils.formatdate(NOW + 42, usegmt=True), 42),
        (email.utils.formatdate(NOW - 42, usegmt=True), 0),
        ("-5", 1),
        ("soon", 1),
        ("\xb2", 1),  # a digit, but no number
        (None, 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept_to_in_seconds_and_as_a_date(
    server, clock, tmp_path, status, header, wait
):
    remote = a_file(server)
    server.script["/a.bin"] = [answer(status, **({"Retry_After": header} if header else {}))]
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 300_000)
    assert clock.waits == [wait]
    assert len(clock.said) == (wait >= 1)


def test_the_hub_says_when_its_window_of_requests_ends(server, clock, tmp_path):
    remote = a_file(server)
    server.script["/a.bin"] = [
        answer(429, RateLimit='"resolvers";r=0;t=55'),
        answer(503, RateLimit='"resolvers";r=12;t=55'),
    ]
    run_fetch(remote, tmp_path / "a.bin", clock)
    assert clock.waits == [55, 2]


def test_waits_double_and_end(server, clock, tmp_path):
    remote = a_file(server)
    clock.web.attempts = 9
    server.script["/a.bin"] = [answer(500)] * 99
    with pytest.raises(
        DownloadRefused, match="given up after 9 failures in a row, the last one: 500"
    ):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert clock.waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for(server, clock, tmp_path):
    remote = a_file(server)
    server.script["/a.bin"] = [answer(429, Retry_After=str(int(LONGEST_WAIT) + 1))]
    with pytest.raises(
        DownloadRefused, match=r"429 Too Many Requests, and the server asks to wait 901 s"
    ):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert clock.waits == []


def test_nobody_listening_is_tried_again(clock, tmp_path):
    remote = Remote("a.bin", "http://127.0.0.1:9/a.bin", 5, None)
    with pytest.raises(DownloadRefused, match="given up after 6 failures.*Connect call failed"):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert clock.waits == [1, 2, 4, 8, 16]


def test_an_unknown_host_is_said_at_once(clock, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    remote = Remote("a.bin", "http://no-such-host.invalid/a.bin", 5, None)
    with pytest.raises(
        DownloadRefused, match=r"no-such-host\.invalid/a\.bin: no such host is known here"
    ):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert clock.waits == []


def test_gzipped_objects_are_checked_as_sent_and_unpacked(server, clock, tmp_path):
    text = b'{"a": 1}\n' * 50_000
    server.add_object("x/y.json", text, gzipped=True)
    stored = server.files["/crfm-helm-public/x/y.json"]
    remote = Remote(
        "y.json",
        f"{server.url}/crfm-helm-public/x/y.json",
        len(stored),
        f"md5:{hashlib.md5(stored).hexdigest()}",
        gzipped=True,
    )
    server.script["/crfm-helm-public/x/y.json"] = [cut_after(50)]
    assert run_fetch(remote, tmp_path / "y.json", clock) == (False, len(stored))
    assert (tmp_path / "y.json").read_bytes() == text
    assert os.listdir(tmp_path) == ["y.json"]
    assert sum(s.sent for s in server.seen) == len(stored) + 50


def test_checksums(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"hello\n")
    # `printf 'hello\n' | git hash-object --stdin`, sha256sum, md5sum
    git = "git-sha1:ce013625030ba8dba906f756967f9e9ca394464a"
    sha256 = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    md5 = "md5:b1946ac92492d2347c6235b4d2611184"
    # the server's own is bit by bit; the value by which CRC-32C is known in lists of such sums
    assert crc32c(b"123456789").hex() == "e3069283"
    for known in (git, sha256, md5, f"crc32c:{crc32c(file.read_bytes()).hex()}"):
        assert checksum_of(file, known) == known
    assert checksum_of(file, None) is None


# --- bad servers, and what stands before them ----------------------------------------------------


def test_chunks_without_a_length_arrive(server, clock, tmp_path):
    remote = a_file(server, CONTENT[:90_000])
    server.script["/a.bin"] = [chunked([CONTENT[:1], CONTENT[1:90_000]], then=last_chunk)]
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 90_000)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[:90_000]
    assert clock.waits == []


@pytest.mark.parametrize("then", [last_chunk, reset_in_a_chunk])
def test_chunks_that_end_too_early_are_gone_on_with(server, clock, tmp_path, then):
    remote = a_file(server)
    server.script["/a.bin"] = [chunked([CONTENT[:10_000]], then=then)]
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 300_000)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert clock.waits == [1]


def test_redirects_in_a_circle_are_refused(server, clock, tmp_path):
    remote = a_file(server)
    server.script["/a.bin"] = [redirect(302, "/b.bin")] * 99
    server.script["/b.bin"] = [redirect(302, "a.bin")] * 99
    with pytest.raises(DownloadRefused, match=r"a\.bin: too many redirects"):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert len(server.seen) < 30 and clock.waits == []


def test_redirects_to_nowhere_are_refused(server, clock, tmp_path):
    remote = a_file(server)
    server.script["/a.bin"] = [redirect(302, "ftp://127.0.0.1/a.bin"), *[answer(302)] * 6]
    with pytest.raises(DownloadRefused, match="ftp://"):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert clock.waits == []
    with pytest.raises(DownloadRefused, match="found 0 bytes in answer to a request for 100,000"):
        run_fetch(remote, tmp_path / "a.bin", clock)


def test_a_slow_drip_is_borne_and_can_be_stopped(server, tmp_path):
    """Bytes that come far apart are no stall; a stop is obeyed after the block."""
    remote, clock = a_file(server), Clock(timeout=0.5)
    clock.web.sleep = pytest.fail

    def drip(handler, seen):
        headers = {"Content-Range": "bytes 100000-199999/300000", "Content-Length": 100_000}
        handler.begin(seen, 206, headers)
        for at in range(100_000, 200_000, 10_000):
            time.sleep(0.1)
            handler.body(seen, CONTENT[at : at + 10_000])

    server.script["/a.bin"] = [serve, drip]
    threading.Timer(0.5, clock.web.stop.set).start()
    with pytest.raises(Stopped):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert partial_file(tmp_path).read_bytes() == CONTENT[:100_000]
    clock.web.stop.clear()
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (True, 200_000)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_web_page_is_no_file_and_costs_nothing_that_was_fetched(server, clock, tmp_path):
    remote = a_file(server)
    server.script["/a.bin"] = [serve, page, *[page] * 6]
    with pytest.raises(ValueError, match="support range requests"):
        run_fetch(remote, tmp_path / "a.bin", clock)
    with pytest.raises(DownloadRefused, match="see whether a proxy answers in the server's place"):
        run_fetch(a_file(server, OTHER), tmp_path / "b.bin", clock)
    server.script["/a.bin"] = []
    server.files["/a.bin"] = CONTENT
    assert run_fetch(remote, tmp_path / "a.bin", clock) == (True, 200_000)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    server.script[f"/api/datasets/{MIX}/revision/main"] = [page]
    with pytest.raises(ValueError, match="revision/main.*: the listing is not of the expected"):
        list_hub(MIXINSTRUCT, [], "main", clock.web)


@pytest.mark.parametrize("stated", [True, False])
def test_a_server_of_http_1_0(server, clock, tmp_path, stated):
    old = Server()
    running = started(old, protocol="HTTP/1.0")
    try:
        remote = a_file(old)

        def cut(handler, seen):  # what the end of the connection means only the listing tells
            length = {"Content-Length": 100_000} if stated else {}
            handler.begin(seen, 206, {"Content-Range": "bytes 0-99999/300000", **length})
            handler.body(seen, CONTENT[:60_000])

        old.script["/a.bin"] = [cut]
        assert run_fetch(remote, tmp_path / "a.bin", clock) == (False, 300_000)
    finally:
        running.shutdown()
        running.server_close()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [s.sent for s in old.seen] == [60_000, 100_000, 100_000, 100_000]


def test_what_is_no_http_is_given_up(clock, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def chatter():
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=chatter, daemon=True).start()
        remote = Remote("a.bin", f"http://127.0.0.1:{listening.getsockname()[1]}/a", 5, None)
        with pytest.raises(DownloadRefused, match="400 Bad Request"):
            run_fetch(remote, tmp_path / "a.bin", clock)
        listening.shutdown(socket.SHUT_RDWR)


def test_many_files_share_a_few_connections(server, clock, tmp_path):
    remotes = []
    for i in range(150):
        content = CONTENT[i * 1000 : (i + 2) * 1000]
        server.files[f"/{i}"] = content
        known = f"sha256:{hashlib.sha256(content).hexdigest()}"
        remotes.append(Remote(f"{i % 10}/{i}", f"{server.url}/{i}", len(content), known))
        if i % 10 == 0:
            server.script[f"/{i}"] = [answer(503), cut_after(500), answer(429, Retry_After="9")]
    steps = []
    progress = lambda total, before: nullcontext(steps.append)  # noqa: E731
    files = download_folder.download(remotes, tmp_path, web=clock.web, progress=progress)
    assert [file.state for file in files] == ["fetched"] * 150
    assert all((tmp_path / r.path).read_bytes() == server.files[f"/{r.path[2:]}"] for r in remotes)
    assert sum(steps) == sum(r.size for r in remotes)
    assert sorted(clock.waits) == [1] * 15 + [2] * 15 + [9] * 15
    assert {s.headers["Accept-Encoding"] for s in server.seen} == {"identity"}
    assert (
        len(server.seen) == 195 and server.connections <= download_folder.JOBS + 45
    )  # one more a failure


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that nobody has signed, and its key, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl on PATH to make a certificate with")
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", file, "-out", f"{file}.crt"]
    subprocess.run(["openssl", *made.split(), *names], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


@pytest.fixture
def secure(server, certificate, monkeypatch):
    """A server over TLS, which nobody trusts yet."""
    served = Server()
    running = started(served, certificate=certificate)
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    served.add_dataset(MIX, dict.fromkeys(MIXINSTRUCT.files, b"{}\n"))
    yield served
    running.shutdown()
    running.server_close()


def test_a_certificate_is_trusted_by_ssl_cert_file(secure, certificate, tmp_path):
    arguments = ("mixinstruct", "--revision", "main", "--cache-dir", tmp_path)
    result = call(*arguments)
    assert result.exit_code == 1
    assert re.fullmatch(
        rf"error: {secure.url}/api/\S+: its certificate is not trusted \(self.signed certificate\)"
        r"; where a proxy has certificates of its own, SSL_CERT_FILE must name them .*\n",
        result.stderr,
    )
    # in a process of its own: aiohttp reads its certificates once
    trusting = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    output, errors = process(None, *arguments, env=trusting).communicate(timeout=60)
    assert "3 fetched" in output, errors


def test_certificates_of_the_system_are_trusted_too(secure, certificate, tmp_path):
    read = ["openssl", "x509", "-hash", "-noout", "-in", certificate]
    name = subprocess.run(read, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / f"{name}.0").write_bytes(certificate.read_bytes())
    trusting = {**os.environ, "SSL_CERT_DIR": str(tmp_path)}  # in place of the system's folder
    arguments = ("mixinstruct", "--revision", "main", "--cache-dir", tmp_path)
    output, errors = process(None, *arguments, env=trusting).communicate(timeout=60)
    assert "3 fetched" in output, errors


def test_a_proxy_that_wants_a_password_is_told_at_once(server, secure, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    server.script[secure.url.removeprefix("https://")] = [answer(407)]
    result = call("mixinstruct", "--cache-dir", tmp_path)
    assert result.exit_code == 1
    assert re.match(r"error: \S+c7f77a4e\S+: 407 Proxy Authentication Required", result.stderr)
    assert secure.seen == []


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SSL_CERT_FILE", str(ROOT / "pyproject.toml"), "X509"),
        ("HTTPS_PROXY", "ftp://127.0.0.1", "ftp"),
    ],
)
def test_an_environment_that_says_nonsense(server, tmp_path, monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    result = call("mixinstruct", "--cache-dir", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: a variable of the environment is not as expected, of")
    assert variable in result.stderr and words in result.stderr


# --- tokens and redirects ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_keep_the_range_and_hand_the_token_to_no_other_host(
    server, clock, tmp_path, monkeypatch, status
):
    other = Server()
    running = started(other)
    try:
        other.files["/b.bin"] = CONTENT
        remote = a_file(server)
        server.script["/a.bin"] = [redirect(status, f"{server.url}/c.bin")] * 3
        server.script["/c.bin"] = [redirect(status, f"{other.url}/b.bin")] * 3
        monkeypatch.setenv("HF_TOKEN", "secret")
        run_fetch(remote, tmp_path / "a.bin", clock)
    finally:
        running.shutdown()
        running.server_close()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [s.headers.get("Authorization") for s in server.seen] == ["Bearer secret"] * 6
    assert [s.headers.get("Authorization") for s in other.seen] == [None] * 3
    assert [s.headers.get("Range") for s in other.seen] == [
        "bytes=0-99999", "bytes=100000-199999", "bytes=200000-300000",
    ]  # fmt: skip


def test_a_token_goes_to_the_hub(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret\n")  # as a file of a secret often ends
    server.add_dataset(MIX, dict.fromkeys(MIXINSTRUCT.files, b"{}\n"))
    assert call("mixinstruct", "--revision", "main", "--cache-dir", tmp_path).exit_code == 0
    assert {s.headers.get("Authorization") for s in server.seen} == {"Bearer secret"}


def test_proxies_of_the_environment_are_used(server, tmp_path, monkeypatch):
    server.add_dataset(MIX, dict.fromkeys(MIXINSTRUCT.files, b"{}\n"))
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    result = call("mixinstruct", "--revision", "main", "--cache-dir", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert {s.headers["Host"] for s in server.seen} == {"hub.invalid"}


# --- listings ------------------------------------------------------------------------------------


def test_what_is_published():
    assert list(SOURCES) == ["helm", "mixinstruct", "routerbench"]
    for source in SOURCES.values():
        assert source.citation.startswith("@") and source.citation.endswith("}")
        assert source.licence and source.page.startswith("https://")
    for source in (MIXINSTRUCT, ROUTERBENCH):
        assert re.fullmatch("[0-9a-f]{40}", source.revision)
        assert set(source.fetched) <= set(source.files)
        assert all(re.fullmatch("[0-9a-f]{64}", known) for known in source.sha256.values())
        assert set(source.sha256) <= set(source.files)


def test_the_hub_states_sizes_and_checksums(server, clock):
    files = dict.fromkeys(MIXINSTRUCT.files, CONTENT) | {"README.md": b"# x"}
    server.add_dataset(MIX, files, small=("val_data_prepared.jsonl",))
    listing = list_hub(MIXINSTRUCT, ["val*", "test*"], "main", clock.web)
    assert listing.version == COMMIT
    assert [r.path for r in listing.remotes] == [
        "val_data_prepared.jsonl", "test_data_prepared.jsonl",
    ]  # fmt: skip
    git = hashlib.sha1(b"blob 300000\0" + CONTENT).hexdigest()
    assert [r.checksum for r in listing.remotes] == [
        f"git-sha1:{git}", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
    ]  # fmt: skip
    assert {r.size for r in listing.remotes} == {300_000}
    assert f"/resolve/{COMMIT}/val_data_prepared.jsonl" in listing.remotes[0].url


def test_a_known_checksum_is_held_against_the_hub(server, clock):
    bad = {"rfilename": "routerbench_0shot.pkl", "size": 5, "blobId": "0" * 40}
    bad["lfs"] = {"sha256": "f" * 64, "size": 5, "pointerSize": 9}
    server.listing(
        ROUTERBENCH.repository, [bad], revisions=[ROUTERBENCH.revision], sha=ROUTERBENCH.revision
    )
    with pytest.raises(ValueError, match=r"lists sha256:ffff.*expected sha256:ba4f77f1"):
        list_hub(ROUTERBENCH, ["*_0shot.pkl"], None, clock.web)


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (["dev*"], "has no file dev\\*, it has train_data_prepared.jsonl, val"),
        (["val*"], "has no val_data_prepared.jsonl at revision main, it has other.txt"),
    ],
)
def test_a_file_that_is_not_there(server, clock, patterns, words):
    server.add_dataset(MIX, {"other.txt": b""})
    with pytest.raises(ValueError, match=words):
        list_hub(MIXINSTRUCT, patterns, "main", clock.web)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"<html>log in</html>", "revision/main.*: the listing is not of the expected form"),
        (b"[]", "revision/main.*: the listing is not of the expected form"),
        (
            b'{"id": "x", "sha": "x", "siblings": [{"rfilename": 7}]}',
            "has no train_data_prepared.jsonl at revision main, it has 7",
        ),
    ],
)
def test_a_listing_of_another_form_names_its_address(server, clock, text, words):
    server.files[f"/api/datasets/{MIX}/revision/main"] = text
    with pytest.raises((ValueError, TypeError), match=words):
        list_hub(MIXINSTRUCT, [], "main", clock.web)


def test_a_listing_is_tried_again(server, clock):
    server.add_dataset(MIX, dict.fromkeys(MIXINSTRUCT.files, b"{}\n"))
    path = f"/api/datasets/{MIX}/revision/main"
    server.script[path] = [answer(429, Retry_After="3"), cut_after(10), answer(502)]
    assert len(list_hub(MIXINSTRUCT, [], "main", clock.web).remotes) == 3
    assert clock.waits == [3, 2, 4]


def add_runs(server, runs, **further):
    for run in runs:
        for file in (*HELM.files, "stats.json", "instances.json"):
            server.add_object(f"{RUNS}/{run}/{file}", f"{run} {file}".encode(), **further)


MMLU = "mmlu:subject=econometrics,method=multiple_choice_joint,model=tiiuae_falcon-40b"
RAFT = "raft:subset=one_stop_english,model=tiiuae_falcon-40b"
BOOLQ = "boolq:model=tiiuae_falcon-40b,data_augmentation=canonical"


def test_helm_is_listed_over_several_pages(server, clock):
    add_runs(server, [MMLU, RAFT, BOOLQ])
    listing = list_helm(HELM, [], HELM.suite, clock.web)
    assert [r.path for r in listing.remotes] == [
        f"{RUNS}/{run}/{file}" for run in sorted([MMLU, RAFT, BOOLQ]) for file in sorted(HELM.files)
    ]
    pages = [s for s in server.seen if s.path.endswith("/o")]
    assert len(pages) == 6  # 18 objects
    assert listing.notes == []
    assert listing.version == HELM.suite == "classic/v0.3.0"


def test_a_pattern_asks_only_for_what_may_match(server, clock):
    add_runs(server, [MMLU, RAFT, BOOLQ])
    listing = list_helm(HELM, ["mmlu:*falcon*", "mmlu:*", "raft:*llama*"], "v0.3.0", clock.web)
    assert {r.path.split("/")[4] for r in listing.remotes} == {MMLU}
    assert len(listing.remotes) == 4
    assert len(server.seen) == 2 + 2 + 2  # two pages for each pattern


def test_the_runs_of_the_papers_datasets(server, clock):
    others = ["imdb:only_contrast=True,model=x", "bbq:subject=Age,model=x", "gsm:model=x"]
    add_runs(server, [MMLU, RAFT, BOOLQ, *others])
    listing = list_helm(HELM, HELM.paper, HELM.suite, clock.web)
    assert {r.path.split("/")[4] for r in listing.remotes} == {MMLU, RAFT, BOOLQ}


def test_runs_that_cannot_be_read_are_left_out_and_told(server, clock):
    add_runs(server, [MMLU, RAFT])
    del server.objects[f"{RUNS}/{RAFT}/scenario_state.json"]
    del server.objects[f"{RUNS}/{MMLU}/scenario.json"]  # not needed
    listing = list_helm(HELM, [], HELM.suite, clock.web)
    assert len(listing.remotes) == 3
    assert re.match(
        r"1 of 2 runs are left out.*\(raft.*has no scenario_state\.json", *listing.notes
    )


def test_an_unknown_suite_names_those_there_are(server, clock):
    add_runs(server, [MMLU])
    with pytest.raises(ValueError, match=r"no run at gs://crfm.*/v9/.*suites classic/v0\.3\.0"):
        list_helm(HELM, [], "classic/v9", clock.web)
    with pytest.raises(ValueError, match=r"v0\.3\.0/ is named imdb\*"):
        list_helm(HELM, ["imdb*"], "classic/v0.3.0", clock.web)


@pytest.mark.parametrize("run", ["..", "."])
def test_a_listing_cannot_leave_the_folder(server, tmp_path, run):
    add_runs(server, [MMLU])
    add_runs(server, [run])
    result = call("helm", "--only", "*", "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 1
    assert "expected a relative path" in result.stderr
    assert not (tmp_path / "cache").exists()


# --- the command ---------------------------------------------------------------------------------


def test_helm_end_to_end(server, tmp_path):
    add_runs(server, [MMLU], gzipped=True)
    add_runs(server, [RAFT], gzipped=True, checksum="crc32c")
    add_runs(server, [BOOLQ], checksum=None)
    result = call("helm", "--only", "*falcon-40b*", "--cache-dir", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    folder = tmp_path / "downloads" / "helm"
    assert document["folder"] == str(folder)
    assert len(document["files"]) == 12
    for run in (MMLU, RAFT, BOOLQ):
        for file in HELM.files:
            assert (folder / RUNS / run / file).read_text() == f"{run} {file}"
    assert {f["state"] for f in document["files"]} == {"fetched"}
    assert sum(f["checksum"] is None for f in document["files"]) == 4
    assert "Liang" in document["citation"] and "Apache-2.0" in document["licence"]
    assert document["next"][0].startswith(f"benchrouter convert {folder}/{RUNS} ")

    fetched = len(server.seen)
    (folder / RUNS / RAFT / "run_spec.json").write_text("damaged")
    (folder / RUNS / BOOLQ / "run_spec.json").unlink()
    again = json.loads(
        call("helm", "--only", "*falcon-40b*", "--cache-dir", tmp_path, "--json").stdout
    )
    states = {f["path"]: f["state"] for f in again["files"]}
    assert sorted(states.values()) == ["fetched"] * 2 + ["kept"] * 10
    assert len([s for s in server.seen[fetched:] if "/o" not in s.path]) == 2
    assert (folder / RUNS / RAFT / "run_spec.json").read_text() == f"{RAFT} run_spec.json"


def test_an_object_of_several_uploads_is_checked_by_its_crc32c(server, tmp_path):
    add_runs(server, [MMLU], checksum="crc32c")
    server.files[f"/crfm-helm-public/{RUNS}/{MMLU}/scenario.json"] = b"x" * len(
        f"{MMLU} scenario.json"
    )
    result = call("helm", "--only", "*", "--cache-dir", tmp_path)
    assert result.exit_code == 1
    expected = crc32c(f"{MMLU} scenario.json".encode()).hex()
    assert re.search(rf"found crc32c:[0-9a-f]{{8}}, expected crc32c:{expected}\n", result.stderr)


def test_helm_wants_to_know_which_runs(server, tmp_path):
    result = call("helm", "--cache-dir", tmp_path)
    assert result.exit_code == 2
    assert "expected a pattern of runs" in " ".join(result.stderr.replace("│", " ").split())
    assert server.seen == []


def test_a_dry_run_lists_files_and_sizes_and_fetches_none(server, tmp_path):
    add_runs(server, [MMLU])
    result = call("helm", "--dry-run", "--cache-dir", tmp_path)
    assert result.exit_code == 0
    size = len(f"{MMLU} run_spec.json")
    assert f"{size}  {RUNS}/{MMLU}/run_spec.json" in result.stdout
    assert "bytes in 4 files, to " in result.stdout
    assert os.listdir(tmp_path) == []
    document = json.loads(call("helm", "--dry-run", "--cache-dir", tmp_path, "--json").stdout)
    assert document["bytes"] == sum(f["bytes"] for f in document["files"]) > 0
    assert not server.requests_of(".json")


def test_mixinstruct_prints_licence_citation_and_what_to_type(server, tmp_path):
    server.add_dataset(MIX, {name: name.encode() for name in MIXINSTRUCT.files})
    result = call("mixinstruct", "--revision", "main", "--cache-dir", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "by size only" not in result.stdout
    for words in ("MIT", "@inproceedings{llm-blender-2023", COMMIT, "3 fetched", str(tmp_path)):
        assert words in result.stdout
    train = tmp_path / "downloads" / "mixinstruct" / "train_data_prepared.jsonl"
    assert f"benchrouter fit {train} --output router" in result.stdout
    assert train.read_bytes() == b"train_data_prepared.jsonl"
    assert "3 kept" in call("mixinstruct", "--revision", "main", "--cache-dir", tmp_path).stdout


def test_routerbench_is_fetched_and_never_unpickled(server, tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"sample_id": ["a"], "prompt": ["p"], "m": [1.0]}).to_pickle(tmp_path / "p")
    bomb = b"cposix\nabort\n(tR."  # reading it ends the process
    server.add_dataset(
        ROUTERBENCH.repository,
        {
            "routerbench_0shot.pkl": (tmp_path / "p").read_bytes(),
            "routerbench_5shot.pkl": bomb,
            "routerbench_raw.pkl": bomb,
        },
    )
    result = call("routerbench", "--revision", "main", "--cache-dir", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [Path(f["path"]).name for f in document["files"]] == list(ROUTERBENCH.fetched)
    *conversions, fit = document["next"]
    paths = [Path(f["path"]) for f in document["files"]]
    assert conversions == [conversion(path) for path in paths]
    subprocess.run(conversions[0].replace("python", sys.executable, 1), shell=True, check=True)
    table = paths[0].with_suffix(".csv")
    assert pandas.read_csv(table)["m"].tolist() == [1.0]
    assert fit == f"benchrouter fit {table} --output router"
    text = call("routerbench", "--revision", "main", "--cache-dir", tmp_path).stdout
    assert "A pickle can run any code when it is read" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hellm"], "found 'hellm', expected helm, mixinstruct, routerbench"),
        (["helm", "--only", "*", "--revision", "main"], "--revision says nothing of helm"),
        (["mixinstruct", "--suite", "v0.3.0"], "--suite says nothing of mixinstruct"),
    ],
)
def test_wrong_usage(arguments, words):
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from benchrouter.cli import main
sys.argv = ["benchrouter", "download", *sys.argv[2:]]
main()
"""


@pytest.mark.parametrize("package", ["aiohttp", "fsspec", "google_crc32c", "huggingface_hub"])
def test_a_missing_package_is_told_with_what_installs_it(package, tmp_path):
    run = process(WITHOUT, package, "mixinstruct", "--cache-dir", tmp_path)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 3
    assert re.fullmatch(
        r"error: download needs aiohttp, fsspec, google-crc32c and huggingface-hub, found .*"
        rf"{package}.*; "
        r"pip install 'benchrouter\[download\]'\n",
        errors,
    )
    help_, _ = process(WITHOUT, package, "--help").communicate(timeout=60)
    assert "HTTPS_PROXY" in help_


def test_a_refusal_is_one_line_with_what_to_do(server, tmp_path):
    result = call("mixinstruct", "--cache-dir", tmp_path)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"error: http://\S+/revision/c7f77a4e\S+: 404 Not Found: nothing is there; .*--revision "
        r"takes another one; see https://huggingface.co/datasets/llm-blender/mix-instruct\)\n",
        result.stderr,
    )


def test_two_runs_do_not_write_the_same_folder(server, tmp_path):
    server.add_dataset(MIX, dict.fromkeys(MIXINSTRUCT.files, b"{}\n"))
    folder = tmp_path / "downloads" / "mixinstruct"
    folder.mkdir(parents=True)
    held = locked(folder)
    try:
        result = call("mixinstruct", "--revision", "main", "--cache-dir", tmp_path)
    finally:
        os.close(held)
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {folder}: another run is writing there\n",
    )
    assert os.listdir(folder) == []


def test_the_cache_folder_is_that_of_the_embeddings(server, tmp_path, monkeypatch):
    server.add_dataset(MIX, dict.fromkeys(MIXINSTRUCT.files, b"{}\n"))
    arguments = ("mixinstruct", "--revision", "main", "--dry-run", "--json")
    monkeypatch.setenv("BENCHROUTER_CACHE", str(tmp_path / "a"))
    expected = str(tmp_path / "a" / "downloads" / "mixinstruct")
    assert json.loads(call(*arguments).stdout)["folder"] == expected
    monkeypatch.delenv("BENCHROUTER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    expected = str(tmp_path / "b" / "benchrouter" / "downloads" / "mixinstruct")
    assert json.loads(call(*arguments).stdout)["folder"] == expected


def test_one_file_that_fails_ends_the_run_and_the_others_are_kept(server, tmp_path):
    server.add_dataset(MIX, {name: name.encode() for name in MIXINSTRUCT.files})
    record = tmp_path / "downloads" / "mixinstruct" / download_folder.RECORD

    def refuse(handler, seen):  # once the two others are there
        deadline = time.monotonic() + 30
        while not record.exists() or record.read_text().count('"url"') < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        answer(403)(handler, seen)

    server.script[f"/datasets/{MIX}/resolve/{COMMIT}/test_data_prepared.jsonl"] = [refuse]
    result = call("mixinstruct", "--revision", "main", "--cache-dir", tmp_path)
    assert result.exit_code == 1
    assert "test_data_prepared.jsonl: 403 Forbidden" in result.stderr
    assert "Traceback" not in result.output
    again = call("mixinstruct", "--revision", "main", "--cache-dir", tmp_path)
    assert "2 kept, 1 fetched" in again.stdout


def test_a_record_cut_short_by_a_kill_is_read(server, tmp_path):
    server.add_dataset(MIX, {name: name.encode() for name in MIXINSTRUCT.files})
    arguments = ("mixinstruct", "--revision", "main", "--cache-dir", tmp_path)
    call(*arguments)
    record = tmp_path / "downloads" / "mixinstruct" / download_folder.RECORD
    record.write_bytes(record.read_bytes()[:-40])
    assert "3 kept" in call(*arguments).stdout  # by the Hub's checksum, where the line is gone
    record.unlink()
    assert "3 kept" in call(*arguments).stdout


# --- disks and kills -----------------------------------------------------------------------------


def test_no_room_is_said_before_anything_is_fetched(server, clock, tmp_path, monkeypatch):
    remote = a_file(server)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=299_999))
    with pytest.raises(OSError, match="300,000 bytes are needed, 299,999 are free") as caught:
        download_folder.download([remote], tmp_path, web=clock.web, progress=None)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path)
    assert server.seen == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=300_000))
    progress = lambda total, before: nullcontext(lambda n: None)  # noqa: E731
    (file,) = download_folder.download([remote], tmp_path, web=clock.web, progress=progress)
    assert (file.state, file.bytes) == ("fetched", 300_000)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from benchrouter.tables.download import web
web.BLOCK_BYTES = 60_000
from benchrouter.cli import main
sys.argv = ["benchrouter", "download", *sys.argv[1:]]
main()
"""


IN_BLOCKS = """
import sys
from benchrouter.tables.download import web
web.BLOCK_BYTES = 100_000
from benchrouter.cli import main
sys.argv = ["benchrouter", "download", *sys.argv[1:]]
main()
"""


def process(code, *arguments, **further):
    """The command in a process of its own, at the root of the checkout."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "benchrouter", "download"])]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **further,
    )


def test_a_disk_that_fills_up_names_the_folder_and_the_bytes(server, tmp_path):
    server.add_dataset(MIX, dict.fromkeys(MIXINSTRUCT.files, CONTENT))
    arguments = ("mixinstruct", "--revision", "main", "--only", "val*", "--cache-dir", tmp_path)
    run = process(LIMITED, *arguments)
    _, errors = run.communicate(timeout=60)
    folder = tmp_path / "downloads" / "mixinstruct"
    assert run.returncode == 1
    assert re.fullmatch(
        rf"error: {re.escape(str(folder))}: File too large: 200,000 bytes are needed, [\d,]+ are "
        r"free; make room, or choose another place with --cache-dir, .* is kept\n",
        errors,
    )
    assert hidden(folder) == sorted(os.listdir(folder))  # nothing under a file's own name
    assert partial_file(folder, "val_data_prepared.jsonl").read_bytes() == CONTENT[:100_000]
    result = call(*arguments)
    assert "1 resumed" in result.stdout
    assert (folder / "val_data_prepared.jsonl").read_bytes() == CONTENT
    assert [s.sent for s in server.seen[-2:]] == [100_000, 100_000]


def test_no_room_to_unpack_names_the_unpacked_size(server, tmp_path):
    add_runs(server, [MMLU])
    server.add_object(f"{RUNS}/{MMLU}/scenario_state.json", bytes(5_000_000), gzipped=True)
    arguments = ("helm", "--only", "mmlu*", "--cache-dir", tmp_path)
    run = process(LIMITED, *arguments)
    _, errors = run.communicate(timeout=60)
    folder = tmp_path / "downloads" / "helm" / RUNS / MMLU
    assert run.returncode == 1
    assert f"error: {folder}: File too large: 5,000,000 bytes are needed, " in errors
    assert not (folder / "scenario_state.json").exists()
    assert not (folder / ".scenario_state.json.unpacked").exists()
    assert "resumed" in call(*arguments).stdout
    assert (folder / "scenario_state.json").read_bytes() == bytes(5_000_000)
    assert len(server.requests_of("scenario_state.json")) == 1  # it had been sent whole


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_killed_is_gone_on_with(server, tmp_path, sent):
    server.add_dataset(MIX, dict.fromkeys(MIXINSTRUCT.files, CONTENT))
    path = f"/datasets/{MIX}/resolve/{COMMIT}/val_data_prepared.jsonl"
    until = threading.Event()
    server.script[path] = [serve, stall_after(20_000, until)]
    arguments = ("mixinstruct", "--revision", "main", "--only", "val*", "--cache-dir", tmp_path)
    run = process(IN_BLOCKS, *arguments)
    folder = tmp_path / "downloads" / "mixinstruct"
    deadline = time.monotonic() + 60
    while [s.sent for s in server.requests_of("val_data_prepared.jsonl")] != [100_000, 20_000]:
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.01)
    run.send_signal(sent)
    began = time.monotonic()
    _, errors = run.communicate(timeout=60)
    assert time.monotonic() - began < 10  # it does not wait for the server
    until.set()
    codes = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}
    assert run.returncode == codes[sent]
    assert "Traceback" not in errors
    assert partial_file(folder, "val_data_prepared.jsonl").read_bytes() == CONTENT[:100_000]
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "1 resumed" in result.stdout
    assert (folder / "val_data_prepared.jsonl").read_bytes() == CONTENT
    assert sorted(os.listdir(folder)) == [download_folder.RECORD, "val_data_prepared.jsonl"]
    assert [s.sent for s in server.requests_of("val_data_prepared.jsonl")] == [
        100_000, 20_000, 100_000, 100_000,
    ]  # fmt: skip


def test_progress_counts_what_was_there_but_not_as_speed(monkeypatch):
    times = iter([0.0, 10.0, 10.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(times))
    with output.Progress("fetch", "bytes", 1_000, 500) as advance:
        advance._bar = None
        advance.done += 100
        assert advance._text(10.0) == "fetch: 600 of 1,000 bytes, 10 a second"


def test_an_unpacked_file_is_a_gzip_file(server, clock, tmp_path):
    content = gzip.compress(CONTENT)[:-9]
    remote = a_file(server, content, gzipped=True)
    with pytest.raises(ValueError, match="not a whole gzip file"):
        run_fetch(remote, tmp_path / "a.bin", clock)
    assert not (tmp_path / "a.bin").exists()
