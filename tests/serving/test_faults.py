"""Full disks, cut input, flipped bytes: nothing lost, nothing doubled, and a message for each."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import make_table, unit_rows
from typer.testing import CliRunner

from benchrouter.cli import app
from benchrouter.decisions.written import manifest, writers
from benchrouter.embeddings import save_embeddings
from benchrouter.files import atomic
from benchrouter.prompts import rejected
from benchrouter.router import Router
from benchrouter.scores import saved
from benchrouter.scores.fitted import Settings

N, DIM = 60, 8
BAD = (7, 25, 55)  # rows that are no prompts: one in each of three parts of 20
needs_full_device = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no /dev/full"
)


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "R"
    scores = np.random.default_rng(1).integers(0, 2, (90, 3))
    Router.fit(make_table(scores, np.arange(90) % 3), embeddings=unit_rows(90, DIM)).save(folder)
    return folder


@pytest.fixture
def prompts(tmp_path):
    """A file of prompts of which some are bad, with embeddings beside it."""
    lines = [json.dumps({"id": i, "prompt": "" if i in BAD else f"prompt {i}"}) for i in range(N)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    np.save(tmp_path / "p.npy", unit_rows(N, DIM, seed=1))
    return tmp_path / "p.jsonl"


def route(router, prompts, target, *options, n=None):
    rows = prompts.parent / "p.npy"
    if n is not None:
        np.save(rows, unit_rows(n, DIM, seed=1))
    arguments = ["route", router, prompts, "--embeddings", rows, "-o", target, "--batch-size", 5]
    return CliRunner().invoke(app, [*map(str, arguments), *map(str, options)])


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def hidden(folder):
    return [str(path) for path in folder.rglob(".*")]


# --- a full disk ----------------------------------------------------------------------------------


def fill_disk(monkeypatch, name, n_before=0):
    """Let the disk be full when a file of this name is written, the first times excepted."""
    passed = 0
    partial_of = atomic.partial_of

    def partial(target):
        nonlocal passed
        path = partial_of(target)
        if str(target).endswith(f"/{name}"):
            passed += 1
            if passed > n_before:
                path.symlink_to("/dev/full")
        return path

    for module in (manifest, rejected, writers):
        monkeypatch.setattr(module, "partial_of", partial)


@needs_full_device
@pytest.mark.parametrize(
    ("format", "name", "n_before", "n_parts"),
    [
        ("jsonl", "out/part-00000.jsonl", 0, 0),
        ("jsonl", "out/part-00001.jsonl", 0, 1),
        ("parquet", "part-00001.parquet", 0, 1),
        ("parquet", "rejected/part-00001.jsonl", 0, 1),
        ("parquet", "manifest.json", 0, 0),
        ("parquet", "manifest.json", 1, 0),
        ("jsonl", "manifest.json", 3, 2),
    ],
)
def test_a_disk_that_fills_up_is_named_and_the_job_goes_on(
    router, prompts, tmp_path, monkeypatch, format, name, n_before, n_parts
):
    options = ("--part-size", 20, "--output-format", format, "--resume")
    assert route(router, prompts, tmp_path / "whole", *options).exit_code == 4
    with monkeypatch.context() as patch:
        fill_disk(patch, name, n_before)
        failed = route(router, prompts, tmp_path / "out", *options)
    assert failed.exit_code == 1
    named = name if name.startswith("out/") else f"out/{name}"
    assert failed.stderr.splitlines()[-1] == f"error: {tmp_path}/{named}: No space left on device"
    assert hidden(tmp_path) == []
    said = manifest.read_manifest(tmp_path / "out") if (tmp_path / "out").exists() else None
    assert (0 if said is None else len(said.parts)) == n_parts
    assert route(router, prompts, tmp_path / "out", *options).exit_code == 4
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@needs_full_device
@pytest.mark.parametrize(
    "name",
    ["o.jsonl", "o.csv", "o.parquet", "o.jsonl.gz", "o.csv.zst", "side.jsonl"],
)
def test_a_disk_that_fills_up_leaves_the_earlier_file(router, prompts, tmp_path, monkeypatch, name):
    target = tmp_path / ("o.csv" if name == "side.jsonl" else name)
    target.write_text("earlier")
    fill_disk(monkeypatch, name)
    options = ("--rejected", tmp_path / "side.jsonl", "--rule", "mean")
    failed = route(router, prompts, target, *options)
    assert failed.exit_code == 1
    assert failed.stderr.splitlines()[-1] == f"error: {tmp_path}/{name}: No space left on device"
    assert target.read_text() == "earlier"
    assert hidden(tmp_path) == []
    assert (tmp_path / "side.jsonl").exists() == (name not in ("o.parquet", "side.jsonl"))


def fitted(kind):
    """A router that has a file of every kind that there is, between the two kinds."""
    rng = np.random.default_rng(0)
    scores = rng.random((480, 3)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    if kind == "binary, approximate":
        pytest.importorskip("faiss")
        scores = np.where(np.isnan(scores), np.nan, scores > 0.5).astype(np.float32)
    table = make_table(
        scores,
        np.arange(480) % 3,
        thresholds=np.full(3, 0.5),
        cost_usd=rng.random((480, 3)).astype(np.float32),
    )
    index = "IVF4,Flat" if kind == "binary, approximate" else None
    return Router.fit(
        table, embeddings=unit_rows(480, DIM), settings=Settings(draws=1, index=index)
    )


KINDS = ["binary, approximate", "continuous"]


def test_the_kinds_have_every_file_between_them(tmp_path):
    for i, kind in enumerate(KINDS):
        fitted(kind).save(tmp_path / str(i))
    found = {path.name for i in range(2) for path in (tmp_path / str(i)).iterdir()}
    assert found == saved.FILES


@needs_full_device
@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_fills_up_while_any_file_of_a_router_is_written(tmp_path, monkeypatch, kind):
    router = fitted(kind)
    router.save(tmp_path / "R")
    before = content(tmp_path / "R")
    new_beside, own_hash = atomic.new_beside, saved._own_hash
    for name in before:

        def beside(target, name=name):
            folder = new_beside(target)
            if name != saved.DESCRIPTION:
                (folder / name).symlink_to("/dev/full")
            return folder

        def hashed(described, name=name):  # the last thing before the description is written
            if name == saved.DESCRIPTION:
                (folder,) = tmp_path.glob(".R.*")
                (folder / name).symlink_to("/dev/full")
            return own_hash(described)

        with monkeypatch.context() as patch:
            patch.setattr(atomic, "new_beside", beside)
            patch.setattr(saved, "_own_hash", hashed)
            with pytest.raises(OSError, match="No space left on device: '.*/R'"):
                router.save(tmp_path / "R")
        assert os.listdir(tmp_path) == ["R"]
        assert content(tmp_path / "R") == before


SAVE_LIMITED = """
import resource, signal, sys
from benchrouter import Router
router = Router.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
router.save(sys.argv[2])
"""


def test_a_disk_that_fills_up_within_an_array_is_told_as_such(tmp_path):
    fitted("continuous").save(tmp_path / "R")
    assert (tmp_path / "R" / "embeddings.npy").stat().st_size > 9000
    run = subprocess.run(
        [sys.executable, "-c", SAVE_LIMITED, tmp_path / "R", tmp_path / "again"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert run.stderr.endswith(f"OSError: [Errno 27] File too large: '{tmp_path}/again'\n")
    assert os.listdir(tmp_path) == ["R"]


@needs_full_device
def test_a_disk_that_fills_up_leaves_the_earlier_embeddings(tmp_path, monkeypatch):
    save_embeddings(tmp_path / "e.npy", unit_rows(5, DIM), None)
    before = content(tmp_path)
    beside = tmp_path / f".e.npy.{os.getpid()}.part"
    beside.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*/e\.npy'"):
        save_embeddings(tmp_path / "e.npy", unit_rows(9000, DIM), None)
    assert content(tmp_path) == before
    assert hidden(tmp_path) == []


# --- cut input ------------------------------------------------------------------------------------


def text_of(suffix):
    """Records as bytes, and where to cut them: within record 41 of 60."""
    if suffix == "jsonl":
        lines = [json.dumps({"id": i, "prompt": f"prompt {i}"}) + "\n" for i in range(N)]
    else:
        lines = ["id,prompt\n", *(f'{i},"prompt,\n{i}"\n' for i in range(N))]
    text = "".join(lines).encode()
    return text, len("".join(lines[: 41 + (suffix == "csv")])) + 10


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        ("jsonl", "line 42: found text that is not JSON"),
        ("csv", "line 84: found no CSV record (an opening quote without a closing one)"),
    ],
)
def test_text_that_ends_within_a_record_loses_that_record_alone(router, tmp_path, suffix, reason):
    text, cut = text_of(suffix)
    (tmp_path / f"p.{suffix}").write_bytes(text[:cut])
    done = route(router, tmp_path / f"p.{suffix}", tmp_path / "o.jsonl", n=42)
    assert done.exit_code == 4
    assert f"p.{suffix}, {reason}" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [int(row["id"]) for row in rows] == list(range(41))
    (bad,) = (tmp_path / "o.jsonl.rejected.jsonl").read_text().splitlines()
    assert json.loads(bad)["row"] == 41
    refused = route(router, tmp_path / f"p.{suffix}", tmp_path / "no.jsonl", "--on-error", "raise")
    assert refused.exit_code == 1
    assert f"p.{suffix}, {reason}" in refused.stderr
    assert not (tmp_path / "no.jsonl").exists()


@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_compressed_text_that_ends_early_keeps_whole_parts_only(
    router, tmp_path, monkeypatch, suffix, compression
):
    monkeypatch.setattr("benchrouter.files.lines.BUFFER_BYTES", 64)
    text, cut = text_of(suffix)
    path = tmp_path / f"p.{suffix}.{compression}"
    if compression == "gz":  # two members, as in files that were put together
        whole = gzip.compress(text[:cut]) + gzip.compress(text[cut:])
    else:
        codec = pa.Codec("zstd")
        whole = b"".join(codec.compress(some, asbytes=True) for some in (text[:cut], text[cut:]))
    path.write_bytes(whole[:-15])
    options = ("--part-size", 10, "--resume")
    failed = route(router, path, tmp_path / "out", *options, n=N)
    assert failed.exit_code == 1
    kind = {"gz": "gzip", "zst": "zstd"}[compression]
    assert f"error: {path}: not a whole {kind} file" in failed.stderr
    parts = manifest.read_manifest(tmp_path / "out").parts
    assert 1 <= len(parts) <= 5  # of 6
    found = pa.concat_tables(pq.read_table(tmp_path / "out" / part.name) for part in parts)
    assert [int(i) for i in found["id"].to_pylist()] == list(range(10 * len(parts)))
    before = content(tmp_path / "out")
    path.write_bytes(whole)  # another file, of which the first parts may be no parts
    refused = route(router, path, tmp_path / "out", *options)
    assert refused.exit_code == 1
    assert "holds parts of another job: input was" in refused.stderr
    assert content(tmp_path / "out") == before
    assert route(router, path, tmp_path / "again", *options).exit_code == 0


@pytest.mark.parametrize("share", [0.3, 0.8, 0.999])
def test_parquet_that_ends_early_is_no_input(router, tmp_path, share):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": [f"prompt {i}" for i in range(N)]}), path, row_group_size=9)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    failed = route(router, path, tmp_path / "out", n=N)
    assert failed.exit_code == 1
    assert f"error: {path}: found no readable Parquet file" in failed.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "jsonl.gz", "csv.gz"])
def test_a_benchmark_that_ends_early_makes_no_router(tmp_path, suffix):
    table = pa.table(
        {
            "sample_id": [f"s{i}" for i in range(N)],
            "prompt": [f"p {i}" for i in range(N)],
            "m": [0, 1] * (N // 2),
            "n": [1, 0] * (N // 2),
        }
    )
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
        whole = path.read_bytes()
    elif suffix.startswith("jsonl"):
        whole = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    else:
        lines = [
            f'{row["m"]},{row["n"]},{row["sample_id"]},"{row["prompt"]}"'
            for row in table.to_pylist()
        ]
        whole = "\n".join(["m,n,sample_id,prompt", *lines]).encode()
    if suffix.endswith("gz"):
        whole = gzip.compress(whole)
    np.save(tmp_path / "t.npy", unit_rows(N, DIM))
    for n_bytes, code in ((len(whole), 0), (len(whole) - 5, 1)):
        path.write_bytes(whole[:n_bytes])
        options = ["--embeddings", str(tmp_path / "t.npy"), "-o", str(tmp_path / f"R{n_bytes}")]
        found = CliRunner().invoke(app, ["fit", str(path), *options])
        assert found.exit_code == code, found.output
        assert (tmp_path / f"R{n_bytes}").exists() == (code == 0)
    assert str(path) in found.stderr


# --- flipped bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_anywhere_in_a_router_is_found_and_the_file_named(tmp_path, kind):
    fitted(kind).save(tmp_path / "R")
    for name, whole in content(tmp_path / "R").items():
        path = tmp_path / "R" / name
        places = np.random.default_rng(len(whole)).integers(0, len(whole) - 1, 5).tolist()
        for at in (0, *places, len(whole) - 2):
            flipped = bytearray(whole)
            flipped[at] ^= 0x04
            # in place and never shorter: what is mapped may still be read ahead
            with open(path, "r+b") as file:
                file.write(flipped)
            with pytest.raises(
                ValueError, match=rf"{name} (is damaged|is not a router|has format)"
            ):
                Router.load(tmp_path / "R")
        with open(path, "r+b") as file:
            file.write(whole)
    Router.load(tmp_path / "R")


def test_a_flipped_byte_in_a_part_or_the_manifest_is_not_built_upon(router, prompts, tmp_path):
    options = ("--part-size", 20, "--resume")
    assert route(router, prompts, tmp_path / "out", *options).exit_code == 4
    path = tmp_path / "out" / "manifest.json"
    whole = path.read_bytes()
    at = whole.index(b'"first_row": 20')
    path.write_bytes(whole.replace(b'"first_row": 20', b'"first_row": 60'))
    failed = route(router, prompts, tmp_path / "out", *options)
    assert failed.exit_code == 1
    assert "part-00001.parquet begins with row 60, not 20" in failed.stderr
    path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    failed = route(router, prompts, tmp_path / "out", *options)
    assert failed.exit_code == 1
    assert f"{path} cannot be read" in failed.stderr
    path.write_bytes(whole)
    with open(tmp_path / "out" / "part-00001.parquet", "ab") as file:
        file.write(b"x")
    failed = route(router, prompts, tmp_path / "out", *options)
    assert failed.exit_code == 1
    assert "part-00001.parquet: found" in failed.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("-o", "p.jsonl"),
        ("-o", "o.jsonl", "--rejected", "p.jsonl"),
        ("-o", "o.jsonl", "--rejected", "o.jsonl"),
        ("-o", "o.jsonl", "--rejected", "./sub/../p.jsonl"),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_no_file_is_written_over_another(router, tmp_path, monkeypatch, words, grouped):
    (tmp_path / "sub").mkdir()
    source = tmp_path / "p.jsonl"
    source.write_text('{"prompt": "one", "task": "t"}\n')
    monkeypatch.chdir(tmp_path)
    words = [*words, *(["--group-by", "task"] if grouped else [])]
    result = CliRunner().invoke(app, ["route", str(router), "p.jsonl", *words])
    assert result.exit_code == 2
    assert "expected another file" in " ".join(result.stderr.replace("│", " ").split())
    assert source.read_text() == '{"prompt": "one", "task": "t"}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "sub"]
