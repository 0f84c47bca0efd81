"""Decisions in parts: killed anywhere and resumed, every prompt is there once."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchrouter.decisions.answers import Decisions
from benchrouter.decisions.written import manifest
from benchrouter.decisions.written.manifest import mark_of, read_manifest
from benchrouter.decisions.written.parts import PartsOutput
from benchrouter.prompts.batches import PromptBatch, read_prompts

ROOT = Path(__file__).resolve().parents[3]
N = 11
BAD = (2, 8, 9)  # rows of the input that are no prompts: part 2 is rows 8 to 11


def decide(batch: PromptBatch) -> Decisions:
    """Decisions that tell the row of every prompt."""
    rows = batch.rows
    score = rows.astype(np.float32)
    return Decisions(("a", "b"), (rows % 2).astype(np.int32), score, score, score, rows % 3 == 0)


def route(source, target, *, format="jsonl", resume=False, stop_at=None, **changes):
    """Route a file of prompts into parts of 4 records, in batches of 3; or fail at a batch."""
    job = {"input": mark_of(source), "rule": "mean", **changes}
    with PartsOutput(target, job=job, part_size=4, format=format, resume=resume) as sink:
        if sink.complete:
            return sink
        batches = read_prompts(
            source, batch=3, on_error="skip", first_row=sink.first_row, part_size=4
        )
        for number, batch in enumerate(batches):
            if number == stop_at:
                raise RuntimeError("stopped")
            sink.write(batch, decide(batch) if batch.prompts else None)
    return sink


def write_input(folder, suffix):
    """Write N records, of which BAD are bad."""
    path = folder / f"p.{suffix}"
    prompts = [("" if i in BAD else f"prompt {i}") for i in range(N)]
    if suffix == "parquet":
        table = pa.table({"prompt": prompts, "n": range(N)})
        pq.write_table(table, path, row_group_size=3)
        return path
    kind = suffix.split(".")[0]
    if kind == "txt":
        text = "".join(f"{p}\n" for p in prompts)
    elif kind == "jsonl":
        text = "".join(json.dumps({"prompt": p, "n": i}) + "\n" for i, p in enumerate(prompts))
    else:  # every other prompt has a line feed in it
        quoted = [f'"{p}\n"' if p and i % 2 else p for i, p in enumerate(prompts)]
        text = "prompt,n\n" + "".join(f"{p},{i}\n" for i, p in enumerate(quoted))
    if suffix.endswith("zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(text.encode())
    else:
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    return path


def content(folder):
    """Every file below a folder, by its name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(target):
    rows = []
    for part in sorted(target.glob("part-*")):
        if part.suffix == ".parquet":
            rows += pq.read_table(part).to_pylist()
        else:
            rows += [json.loads(line) for line in part.read_text().splitlines()]
    return rows


INPUTS = ["txt", "jsonl", "csv", "parquet", "jsonl.gz", "csv.zst"]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
@pytest.mark.parametrize("suffix", INPUTS)
def test_parts_hold_every_prompt_and_the_manifest_says_which(tmp_path, suffix, format):
    source = write_input(tmp_path, suffix)
    sink = route(source, tmp_path / "out", format=format)
    kept = [i for i in range(N) if i not in BAD]
    found = rows_of(tmp_path / "out")
    assert [r["score"] for r in found] == kept
    assert [r["prompt"].strip() for r in found] == [f"prompt {i}" for i in kept]
    assert [r["model"] for r in found] == ["ab"[i % 2] for i in kept]
    assert sorted(content(tmp_path / "out")) == [
        "manifest.json",
        *(f"part-{i:05d}.{format}" for i in range(3)),
        *("rejected/part-00000.jsonl", "rejected/part-00002.jsonl"),
    ]
    said = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert said["complete"] is True
    assert [(p["first_row"], p["rows"], p["prompts"], p["rejected"]) for p in said["parts"]] == [
        *((0, 4, 3, 1), (4, 4, 4, 0), (8, 3, 1, 2))
    ]
    assert said["totals"] == {
        **{"prompts": 8, "rejected": 3, "fallbacks": 3, "models": {"a": 4, "b": 4}},
        **{"cost_usd": 0.0, "over_limit": 0},
    }
    assert sink.totals.models == {"a": 4, "b": 4}
    bad = [
        json.loads(line)
        for p in sorted((tmp_path / "out" / "rejected").iterdir())
        for line in p.read_text().splitlines()
    ]
    assert [r["row"] for r in bad] == list(BAD)
    assert {r["reason"] for r in bad} == {"found an empty prompt, expected text"}
    lines = {"txt": [3, 9, 10], "jsonl": [3, 9, 10], "csv": [5, 14, 15], "parquet": [None] * 3}
    assert [r["line"] for r in bad] == lines[suffix.split(".")[0]]
    raw = {"txt": "", "jsonl": '{"prompt": "", "n": 2}', "csv": ",2", "parquet": ""}
    assert bad[0]["raw"] == raw[suffix.split(".")[0]]


KILLED_ANYWHERE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_parts import route
source, root, format = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
os.fsync = lambda descriptor: None  # a kill loses nothing that was written
route(source, root / "warm", format=format)  # what is imported on the way, all children have

def run(target, left):
    # the child of a fork: killed before its operation number `left` on a file in the target
    def count(event, arguments):
        nonlocal left
        if event in EVENTS and str(target) in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    if left:
        sys.addaudithook(count)
    route(source, target, format=format, resume=True)

point = 0
while True:
    point += 1
    target = root / f"{point:03d}"
    for left in (point, point // 2, 0):  # killed, killed again while it goes on, left in peace
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run(target, left)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(target.name, left, "killed" if os.WIFSIGNALED(status) else "done", flush=True)
        if not os.WIFSIGNALED(status):
            assert status == 0, (point, left)
            break
    if left == point:
        break
"""


@pytest.mark.parametrize(
    ("suffix", "format"), [("jsonl", "jsonl"), ("csv", "jsonl"), ("parquet", "parquet")]
)
def test_killed_before_any_operation_on_a_file_and_resumed(tmp_path, suffix, format):
    source = write_input(tmp_path, suffix)
    route(source, tmp_path / "whole", format=format)
    (tmp_path / "killed").mkdir()
    arguments = [str(Path(__file__).parent), str(source), str(tmp_path / "killed"), format]
    result = subprocess.run(
        [sys.executable, "-c", KILLED_ANYWHERE, *arguments],
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    said = result.stdout.splitlines()
    # 3 parts, each of them a file, and a manifest: opened, synced, renamed
    assert sum(line.endswith("killed") for line in said) > 2 * 3 * 2 * 3
    expected = content(tmp_path / "whole")
    targets = sorted((tmp_path / "killed").iterdir())
    assert len(targets) > 30
    for target in targets:
        assert content(target) == expected, target.name


def test_a_complete_job_is_left_alone(tmp_path):
    source = write_input(tmp_path, "txt")
    route(source, tmp_path / "out")
    before = content(tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert route(source, tmp_path / "out", resume=True).complete
    assert content(tmp_path / "out") == before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == times


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_an_error_leaves_the_parts_that_were_whole(tmp_path, format):
    source = write_input(tmp_path, "jsonl")
    with pytest.raises(RuntimeError, match="stopped"):
        route(source, tmp_path / "out", stop_at=3, format=format)  # in the second part
    assert sorted(content(tmp_path / "out")) == [
        *("manifest.json", f"part-00000.{format}", "rejected/part-00000.jsonl")
    ]
    assert read_manifest(tmp_path / "out").complete is False
    route(source, tmp_path / "out", format=format, resume=True)
    route(source, tmp_path / "whole", format=format)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_an_error_before_the_first_part_leaves_nothing(tmp_path):
    source = write_input(tmp_path, "jsonl")
    with pytest.raises(RuntimeError, match="stopped"):
        route(source, tmp_path / "out", stop_at=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "raw"}, "rule was 'mean', is 'raw'"),
        ({"embeddings": "e"}, "embeddings was None, is 'e'"),
        ({"input": None}, "input was "),
    ],
)
def test_another_job_is_not_resumed(tmp_path, change, words):
    source = write_input(tmp_path, "txt")
    with pytest.raises(RuntimeError, match="stopped"):
        route(source, tmp_path / "out", stop_at=3)
    before = content(tmp_path / "out")
    if "input" in change:
        source.write_text(source.read_text().replace("prompt 10", "prompt 1x"))
        change = {}
    with pytest.raises(ValueError, match="holds parts of another job: " + words):
        route(source, tmp_path / "out", resume=True, **change)
    assert content(tmp_path / "out") == before


def test_the_same_input_elsewhere_is_the_same_input(tmp_path):
    source = write_input(tmp_path, "txt")
    with pytest.raises(RuntimeError, match="stopped"):
        route(source, tmp_path / "out", stop_at=3)
    moved = source.rename(tmp_path / "moved.txt")
    route(moved, tmp_path / "out", resume=True)
    assert len(rows_of(tmp_path / "out")) == N - len(BAD)


def test_other_directories_are_refused(tmp_path):
    source = write_input(tmp_path, "txt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("kept")
    with pytest.raises(ValueError, match=r"full is not empty \(it holds 'notes'\), expected"):
        route(source, tmp_path / "full")
    with pytest.raises(ValueError, match="no manifest.json beside 'notes'"):
        route(source, tmp_path / "full", resume=True)
    assert content(tmp_path / "full") == {"notes": b"kept"}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "part-00000.jsonl").write_text("kept")
    with pytest.raises(ValueError, match="no manifest.json beside 'part-00000.jsonl'"):
        route(source, tmp_path / "theirs", resume=True)
    assert content(tmp_path / "theirs") == {"part-00000.jsonl": b"kept"}
    (tmp_path / "empty").mkdir()
    route(source, tmp_path / "empty", resume=True)  # nothing was begun: begins
    with pytest.raises(ValueError, match="is not empty"):
        route(source, tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        route(source, tmp_path / "no" / "such")


def damage(target, name):
    if name == "size":
        with open(target / "part-00000.jsonl", "a") as file:
            file.write("\n")
    elif name == "missing":
        (target / "part-00000.jsonl").unlink()
    else:
        text = (target / "manifest.json").read_text()
        changes = {
            "cut": (text, text[:-9]),
            "version": ('"format_version": 1', '"format_version": 9'),
            "gap": ('"first_row": 4', '"first_row": 5'),
            "no list": ('"parts": [', '"pants": ['),
        }
        old, new = changes[name]
        assert old in text
        (target / "manifest.json").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("size", "part-00000.jsonl: found [0-9]+ bytes, the manifest says [0-9]+"),
        ("missing", "part-00000.jsonl: found no file"),
        ("cut", "manifest.json cannot be read: Expecting"),
        ("version", "format version 9, this release reads 1"),
        ("gap", "part-00001.jsonl begins with row 5, not 4"),
        ("no list", "manifest.json cannot be read: 'parts'"),
    ],
)
def test_a_damaged_directory_is_named(tmp_path, name, words):
    source = write_input(tmp_path, "txt")
    route(source, tmp_path / "out")
    damage(tmp_path / "out", name)
    with pytest.raises(ValueError, match=words):
        route(source, tmp_path / "out", resume=True)


def test_two_runs_do_not_write_to_one_directory(tmp_path):
    source = write_input(tmp_path, "txt")
    job = {"input": mark_of(source), "rule": "mean"}
    with PartsOutput(tmp_path / "out", job=job, part_size=4) as sink:
        with pytest.raises(ValueError, match="another run is writing there"):
            route(source, tmp_path / "out", resume=True)
        assert not sink.complete


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_full_disk_is_named_and_the_job_goes_on_later(tmp_path, monkeypatch, format):
    source = write_input(tmp_path, "jsonl")
    calls = 0
    real = os.fsync

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls == 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        route(source, tmp_path / "out", format=format)
    assert "out/" in error.value.filename
    assert calls == 10
    assert not list((tmp_path / "out").rglob(".*"))
    assert not read_manifest(tmp_path / "out").complete
    route(source, tmp_path / "out", format=format, resume=True)
    route(source, tmp_path / "whole", format=format)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_no_prompts_make_one_empty_part(tmp_path, format):
    (tmp_path / "p.txt").write_text("")
    sink = route(tmp_path / "p.txt", tmp_path / "out", format=format)
    assert sink.complete
    assert rows_of(tmp_path / "out") == []
    assert sorted(content(tmp_path / "out")) == ["manifest.json", f"part-00000.{format}"]


def test_later_parts_keep_the_columns_of_the_first(tmp_path):
    lines = [f'{{"prompt": "p", "x": {i}.5, "tags": ["t"], "at": {{"u": 1}}}}' for i in range(4)]
    lines += ['{"prompt": "p", "x": 4}', '{"prompt": ""}', '{"prompt": ""}', '{"prompt": ""}']
    lines += ['{"prompt": "", "x": 1}'] * 4 + ['{"prompt": "p", "x": 9, "tags": ["u"]}']
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    route(tmp_path / "p.jsonl", tmp_path / "out", format="parquet")
    schemas = [pq.read_schema(p) for p in sorted((tmp_path / "out").glob("*.parquet"))]
    assert len(schemas) == 4
    assert all(schema.equals(schemas[0]) for schema in schemas)
    assert [r["x"] for r in rows_of(tmp_path / "out")] == [0.5, 1.5, 2.5, 3.5, 4.0, 9.0]
    # and so they do when another run writes them
    with pytest.raises(RuntimeError, match="stopped"):
        route(tmp_path / "p.jsonl", tmp_path / "cut", stop_at=2, format="parquet")
    route(tmp_path / "p.jsonl", tmp_path / "cut", format="parquet", resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "out")
    with open(tmp_path / "p.jsonl", "a") as file:
        file.write('\n{"prompt": "p", "new": 1}\n')
    with pytest.raises(ValueError, match="a field 'new' that no record of the first batch has"):
        route(tmp_path / "p.jsonl", tmp_path / "new", format="parquet")
    assert len(read_manifest(tmp_path / "new").parts) == 3


@pytest.mark.parametrize("size", [0, 1, 1000, 64 * 16, 64 * 16 + 1, 5000, 100_003])
def test_a_fingerprint_sees_all_of_a_small_file_and_both_ends_of_a_large_one(
    tmp_path, monkeypatch, size
):
    monkeypatch.setattr(manifest, "SAMPLE_BYTES", 16)
    text = bytearray(random.Random(size).randbytes(size))
    (tmp_path / "f").write_bytes(text)
    mark = mark_of(tmp_path / "f")
    assert mark["bytes"] == size
    assert mark == mark_of(tmp_path / "f")
    places = range(size) if size <= 64 * 16 else (0, 15, size - 16, size - 1)
    for place in list(places)[:: max(1, len(places) // 50)]:
        text[place] ^= 1
        (tmp_path / "f").write_bytes(text)
        assert mark_of(tmp_path / "f")["fingerprint"] != mark["fingerprint"], place
        text[place] ^= 1
    (tmp_path / "f").write_bytes(text + b"x")
    assert mark_of(tmp_path / "f") != mark
