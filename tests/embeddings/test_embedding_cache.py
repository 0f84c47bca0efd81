"""The cache of embeddings on disk: what it saves, and what it survives."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tiny_encoder import prompts_of, write_bert, write_json

from benchrouter.embeddings import Encoder, default_cache_dir
from benchrouter.embeddings.cache import CacheWarning, EmbeddingCache, key_of
from benchrouter.embeddings.network.network import Network

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every forward pass made during the test."""
    rows: list[int] = []
    forward = Network.__call__

    def counted(self, batch):
        rows.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(Network, "__call__", counted)
    return rows


@pytest.fixture(autouse=True)
def no_warning():
    """A cache that gives up says so: tests that expect it catch the warning themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*lost their end")
        yield


def rows_of(n: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def keys_of(n: int, first: int = 0) -> list[bytes]:
    return [key_of(f"prompt {i}") for i in range(first, first + n)]


def test_round_trip(tmp_path):
    cache = EmbeddingCache(tmp_path / "new" / "folder", {"a": 1}, 8)
    keys, rows = keys_of(2000), rows_of(2000)
    assert cache.get(keys) == {}
    cache.put(keys, rows)
    found = cache.get([*keys, key_of("another")])
    assert len(found) == 2000
    assert_array_equal(np.array([found[key] for key in keys]), rows)
    assert EmbeddingCache(tmp_path / "new" / "folder", {"a": 2}, 8).get(keys) == {}
    assert [p.suffix for p in cache.path.parent.iterdir()] == [".sqlite3"]


def test_hits_do_not_run_the_forward(bert, tmp_path, forwarded):
    texts = [*prompts_of([3, 9, 0, 30]), "lone \ud800 surrogate", "nul \x00"]
    encoder = Encoder.load(bert, cache_dir=tmp_path)
    fresh = encoder.encode(texts)
    assert sum(forwarded) == 6
    assert_array_equal(encoder.encode(texts[::-1]), fresh[::-1])
    assert_array_equal(Encoder.load(bert, cache_dir=tmp_path).encode(texts), fresh)
    assert sum(forwarded) == 6
    mixed = encoder.encode([texts[1], "w1 new", texts[0]])
    assert sum(forwarded) == 7
    assert_array_equal(mixed[[0, 2]], fresh[[1, 0]])


def test_off(bert, tmp_path, forwarded, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    encoder = Encoder.load(bert)
    encoder.encode(["w1"])
    encoder.encode(["w1"])
    assert forwarded == [1, 1]
    assert list(tmp_path.iterdir()) == []


def test_other_settings_share_nothing(bert, tmp_path, forwarded):
    lower = tmp_path / "lower"
    shutil.copytree(bert, lower)
    write_json(lower / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": True})
    moved = tmp_path / "moved"
    shutil.copytree(bert, moved)
    text = ["W1 w2 w3 w4"]
    Encoder.load(bert, cache_dir=tmp_path / "c").encode(text)
    for name, options in ((bert, {"max_tokens": 4}), (bert, {"dtype": "float16"}), (lower, {})):
        before = len(forwarded)
        Encoder.load(name, cache_dir=tmp_path / "c", **options).encode(text)
        assert len(forwarded) == before + 1
    # The same weights and tokenizer elsewhere on the disk are the same encoder.
    before = len(forwarded)
    Encoder.load(moved, cache_dir=tmp_path / "c").encode(text)
    assert len(forwarded) == before
    assert len(list((tmp_path / "c").iterdir())) == 4


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "benchrouter" / "embeddings"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "benchrouter" / "embeddings"


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def foreign_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE embeddings (key BLOB, vector BLOB, crc INTEGER)")


def other_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(truncate, id="truncated"),
        pytest.param(lambda path: path.write_bytes(b"not a database, " * 999), id="not a database"),
        pytest.param(foreign_database, id="foreign database"),
        pytest.param(other_version, id="other version"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder"),
    ],
)
def test_unusable_file_is_left_alone_with_a_warning(bert, tmp_path, forwarded, damage):
    texts = prompts_of([5] * 400)
    fresh = Encoder.load(bert, cache_dir=tmp_path).encode(texts)
    (path,) = tmp_path.iterdir()
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    forwarded.clear()
    encoder = Encoder.load(bert, cache_dir=tmp_path)
    with pytest.warns(
        RuntimeWarning, match="found no usable embedding cache .*delete it"
    ) as caught:
        rows = encoder.encode(texts)
    assert len(caught) == 1
    assert str(path) in str(caught[0].message)
    assert_array_equal(rows, fresh)
    assert sum(forwarded) == 400
    assert (path.read_bytes() if path.is_file() else None) == before
    encoder.encode(texts[:1])  # and no second warning
    if path.is_file():
        path.unlink()
        again = Encoder.load(bert, cache_dir=tmp_path)
        assert_array_equal(again.encode(texts), fresh)
        forwarded.clear()
        again.encode(texts)
        assert forwarded == []


def test_emptied_file_starts_anew(tmp_path):
    cache = EmbeddingCache(tmp_path, {}, 8)
    cache.put(keys_of(3), rows_of(3))
    os.truncate(cache.path, 0)
    assert cache.get(keys_of(3)) == {}
    cache.put(keys_of(3), rows_of(3))
    assert len(cache.get(keys_of(3))) == 3


def test_damaged_row_is_encoded_again(bert, tmp_path, forwarded):
    texts = prompts_of([5, 6, 7])
    encoder = Encoder.load(bert, cache_dir=tmp_path)
    fresh = encoder.encode(texts)
    (path,) = tmp_path.iterdir()
    with closing(sqlite3.connect(path)) as database, database:
        (vector,) = database.execute(
            "SELECT vector FROM embeddings WHERE key = ?", (key_of(texts[1]),)
        ).fetchone()
        flipped = bytes([vector[0] ^ 1]) + vector[1:]
        database.execute("UPDATE embeddings SET vector = ? WHERE vector = ?", (flipped, vector))
    forwarded.clear()
    with pytest.warns(RuntimeWarning, match="found 1 damaged embeddings; they are encoded again"):
        rows = encoder.encode(texts)
    assert forwarded == [1]
    np.testing.assert_allclose(rows, fresh, atol=1e-6)
    encoder.encode(texts)
    assert forwarded == [1]


def test_unwritable_folder(bert, tmp_path):
    (tmp_path / "file").write_text("")
    encoder = Encoder.load(bert, cache_dir=tmp_path / "file" / "below")
    with pytest.warns(CacheWarning, match="no embedding can be kept there .Not a directory"):
        assert encoder.encode(["w1"]).shape == (1, 32)


def test_threads_share_a_cache(bert, tmp_path, forwarded):
    texts = prompts_of([6] * 60)
    encoder = Encoder.load(bert, cache_dir=tmp_path)
    jobs = [texts[i : i + 20] for i in range(0, 60, 5)]
    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(encoder.encode, jobs))
    forwarded.clear()
    for job, rows in zip(jobs, first, strict=True):
        np.testing.assert_allclose(encoder.encode(job), rows, atol=1e-6)
    assert forwarded == []


WRITER = """
import sys
import numpy as np
from benchrouter.embeddings.cache import EmbeddingCache, key_of

directory, first, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache = EmbeddingCache(directory, {"a": 1}, 8)
print("ready", flush=True)
for block in range(blocks):
    numbers = range(first + 50 * block, first + 50 * (block + 1))
    rows = np.array([[n] * 8 for n in numbers], dtype=np.float32)
    cache.put([key_of(f"prompt {n}") for n in numbers], rows)
    print(block, flush=True)
"""


def start_writer(directory: Path, first: int, blocks: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WRITER, str(directory), str(first), str(blocks)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_share_a_file(tmp_path):
    # The second half of one is the first half of the other; both create the file.
    writers = [start_writer(tmp_path, first, 20) for first in (0, 500)]
    for writer in writers:
        assert writer.communicate(timeout=60)[0].endswith("19\n")
        assert writer.returncode == 0
    found = EmbeddingCache(tmp_path, {"a": 1}, 8).get(keys_of(2000))
    assert len(found) == 1500
    for n, key in enumerate(keys_of(1500)):
        assert_array_equal(found[key], np.full(8, n, dtype=np.float32))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_writer_leaves_whole_rows(tmp_path):
    for attempt in range(3):
        writer = start_writer(tmp_path, 0, 1_000_000)
        done = -1
        while done < 5:
            line = writer.stdout.readline()
            assert line, "the writer ended by itself"
            line = line.strip()
            done = int(line) if line.isdigit() else done
        time.sleep(0.003 * attempt)
        writer.kill()
        done = max([done, *(int(line) for line in writer.communicate(timeout=60)[0].split())])
        found = EmbeddingCache(tmp_path, {"a": 1}, 8).get(keys_of(50 * (done + 1)))
        assert len(found) == 50 * (done + 1)
        for n, key in enumerate(keys_of(50 * (done + 1))):
            assert_array_equal(found[key], np.full(8, n, dtype=np.float32))
