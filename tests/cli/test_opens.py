"""Every command opens a source once, by whichever library: counted by inotify."""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from benchrouter.cli.app import app

IN_OPEN = 0x20
IN_ANY = 0x1 | 0x8 | 0x10 | IN_OPEN  # reads and closings too: equal events in a row are merged
libc = ctypes.CDLL(None, use_errno=True)
pytestmark = pytest.mark.skipif(not hasattr(libc, "inotify_init1"), reason="needs inotify (Linux)")


def opens_of(folder, words):
    """Run a command; opens of each file in a folder, by name."""
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_ANY) >= 0
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        events = b""
        while True:
            try:
                events += os.read(descriptor, 1 << 16)
            except BlockingIOError:
                break
    finally:
        os.close(descriptor)
    found: Counter[str] = Counter()
    at = 0
    while at < len(events):
        _, mask, _, length = struct.unpack_from("iIII", events, at)
        name = events[at + 16 : at + 16 + length].rstrip(b"\0").decode()
        found[name] += bool(mask & IN_OPEN)
        at += 16 + length
    found.pop("", None)  # the folder itself
    return dict(found)


@pytest.fixture
def files(tmp_path):
    """A table as CSV, with a further metric, and embeddings of its prompts."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["dataset,sample_id,prompt,a,b,f1::a,f1::b"]
    for i in range(60):
        a, b = rng.integers(0, 2, 2)
        lines.append(f"d{i % 3},{i},prompt {i},{a},{b},{a / 2},{b / 2}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    rows = rng.normal(size=(60, 8)).astype(np.float32)
    np.save(folder / "t.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_convert_opens_a_table_once(files, tmp_path, suffix):
    table = files / "t.csv"
    if suffix != ".csv":
        words = ["convert", table, "--also", "f1", "-o", tmp_path / f"u{suffix}"]
        opens_of(files, words)
        table = (tmp_path / f"u{suffix}").rename(files / f"u{suffix}")
        (tmp_path / "u.json").rename(files / "u.json")
    found = opens_of(files, ["convert", table, "--also", "f1,g=f1", "-o", tmp_path / "v.csv"])
    assert found == ({"t.csv": 1} if suffix == ".csv" else {table.name: 1, "u.json": 1})


def test_fit_opens_a_table_and_its_embeddings_once(files, tmp_path):
    words = ["fit", files / "t.csv", "--embeddings", files / "t.npy", "-o", tmp_path / "R"]
    assert opens_of(files, words) == {"t.csv": 1, "t.npy": 1}


def test_evaluate_opens_a_table_and_its_embeddings_once(files):
    words = ["evaluate", files / "t.csv", "--embeddings", files / "t.npy", "--also", "f1"]
    assert opens_of(files, [*words, "--protocols", "prompts"]) == {"t.csv": 1, "t.npy": 1}
