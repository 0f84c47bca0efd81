"""Prompts in, decisions out: every format, every kind of bad record, and files whole or absent."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchrouter.decisions.answers import Decisions
from benchrouter.decisions.written.writers import open_decisions
from benchrouter.embeddings.stored_stream import EmbeddingFile, with_embeddings
from benchrouter.prompts.batches import read_prompts
from benchrouter.prompts.records import wrong_prompt


def decisions(n: int) -> Decisions:
    score = np.linspace(0.1, 0.9, n, dtype=np.float32)
    return Decisions(
        models=("a", "b"),
        model=np.arange(n, dtype=np.int32) % 2,
        score=score,
        margin=score / 2,
        distance=np.where(np.arange(n) == 1, np.nan, score).astype(np.float32),
        fallback=np.arange(n) == 1,
    )


def all_prompts(path: Path, **options: object) -> list[str]:
    return [p for batch in read_prompts(path, **options) for p in batch.prompts]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_text_is_split_at_line_feeds_only(tmp_path):
    path = write(tmp_path / "p.txt", "one\u2028still one\x0b\x0c\x85here\ntwo\r\nthr\ree")
    assert all_prompts(path) == ["one\u2028still one\x0b\x0c\x85here", "two", "thr\ree"]


def test_jsonl_keeps_every_other_field(tmp_path):
    lines = ['{"id": "007", "prompt": "a\u2028b", "tag": [1, {"x": null}]}', '{"prompt": "c"}']
    (batch,) = read_prompts(write(tmp_path / "p.jsonl", "\n".join(lines)))
    assert batch.prompts == ["a\u2028b", "c"]
    assert batch.fields == [{"id": "007", "tag": [1, {"x": None}]}, {}]
    assert batch.rows.tolist() == [0, 1]


def test_csv_values_stay_strings(tmp_path):
    text = 'id,prompt,n\n007,"two\nlines, ""quoted""",1.50\n8,short,\n'
    (batch,) = read_prompts(write(tmp_path / "p.csv", text))
    assert batch.prompts == ['two\nlines, "quoted"', "short"]
    assert batch.fields == [{"id": "007", "n": "1.50"}, {"id": "8", "n": ""}]


def test_parquet_columns_keep_their_types(tmp_path):
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int16()),
            "prompt": pa.array(["x", "y"]).dictionary_encode(),
            "at": pa.array([0, 1], pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    (batch,) = read_prompts(tmp_path / "p.parquet")
    assert batch.prompts == ["x", "y"]
    assert batch.fields.schema == pa.schema([("id", pa.int16()), ("at", pa.timestamp("us"))])


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "parquet"])
def test_batches_cover_the_file_in_order(tmp_path, suffix):
    prompts = [f"prompt {i}" for i in range(10)]
    path = tmp_path / f"p.{suffix}"
    if suffix == "txt":
        write(path, "\n".join(prompts) + "\n")
    elif suffix == "jsonl":
        write(path, "".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    elif suffix == "csv":
        write(path, "prompt\n" + "\n".join(prompts) + "\n")
    else:
        pq.write_table(pa.table({"prompt": prompts}), path)
    batches = list(read_prompts(path, batch=4))
    assert [b.prompts for b in batches] == [prompts[:4], prompts[4:8], prompts[8:]]
    assert [(b.first_row, b.n_source_rows) for b in batches] == [(0, 4), (4, 4), (8, 2)]
    assert np.concatenate([b.rows for b in batches]).tolist() == list(range(10))


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv"])
def test_gzip_and_byte_order_mark(tmp_path, suffix, bom):
    text = {"txt": b"hello\n", "jsonl": b'{"prompt": "hello"}\n', "csv": b"prompt\nhello\n"}
    path = write(tmp_path / f"p.{suffix}.gz", gzip.compress(bom + text[suffix]))
    assert all_prompts(path) == ["hello"]


def test_a_cut_gzip_file_is_named(tmp_path):
    path = write(tmp_path / "p.txt.gz", gzip.compress(os.urandom(5000).hex().encode())[:-20])
    with pytest.raises(ValueError, match=r"p\.txt\.gz: not a whole gzip file"):
        all_prompts(path)


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv"])
def test_zstd_is_read_and_a_cut_or_changed_file_is_named(tmp_path, suffix):
    prompts = [os.urandom(30).hex() for _ in range(2000)]
    text = {
        "txt": "\n".join(prompts),
        "jsonl": "\n".join(json.dumps({"prompt": p}) for p in prompts),
        "csv": "\n".join(["prompt", *prompts]),
    }[suffix]
    frames = b"".join(  # two of them, as in files that were put together
        pa.Codec("zstd").compress(half.encode(), asbytes=True)
        for half in (text[:50_000], text[50_000:])
    )
    path = write(tmp_path / f"p.{suffix}.zst", frames)
    assert all_prompts(path) == prompts
    for bad in (frames[:-20], frames[: len(frames) // 3], frames + b"more than that", b""):
        write(path, bad)
        with pytest.raises(ValueError, match=rf"p\.{suffix}\.zst: not a whole zstd file"):
            all_prompts(path)


def test_an_empty_file_is_no_whole_gzip_file(tmp_path):
    with pytest.raises(ValueError, match=r"p\.txt\.gz: not a whole gzip file: it is empty"):
        all_prompts(write(tmp_path / "p.txt.gz", b""))


@pytest.mark.parametrize("compressed", [False, True])
def test_the_share_of_the_file_that_was_read_grows_to_all_of_it(tmp_path, compressed):
    text = "".join(f"{os.urandom(20).hex()}\n" for _ in range(20_000)).encode()
    name = "p.txt.gz" if compressed else "p.txt"
    path = write(tmp_path / name, gzip.compress(text) if compressed else text)
    shares = [batch.share for batch in read_prompts(path, batch=1000)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    if not compressed:
        np.testing.assert_allclose(shares, np.arange(1, 21) / 20, atol=0.02)
    pq.write_table(pa.table({"prompt": ["a"] * 10}), tmp_path / "p.parquet")
    batches = read_prompts(tmp_path / "p.parquet", batch=4, first_row=3)
    assert [batch.share for batch in batches] == [0.7, 1.0]


def records_with_bad_ones(suffix):
    """23 records, 7 of them bad, and in CSV of several lines."""
    good = [f"prompt {i}" for i in range(23)]
    if suffix == "parquet":
        return [None if i % 3 == 2 else p for i, p in enumerate(good)]
    if suffix == "txt":
        return "".join("\n" if i % 3 == 2 else f"{p}\n" for i, p in enumerate(good)) + "\n"
    if suffix == "jsonl":
        lines = ["{" if i % 3 == 2 else f'{{"prompt": "{p}"}}' for i, p in enumerate(good)]
    else:
        lines = ["prompt"] + ['"a"b' if i % 3 == 2 else f'"{p}\n\n,"' for i, p in enumerate(good)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("part_size", [None, 5, 7, 40])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_reading_from_a_row_on_is_reading_the_rest(tmp_path, suffix, part_size, batch):
    path = tmp_path / f"p.{suffix}"
    content = records_with_bad_ones(suffix)
    if suffix == "parquet":
        pq.write_table(pa.table({"prompt": content, "n": range(23)}), path, row_group_size=4)
    else:
        write(path, content)
    options = {"batch": batch, "part_size": part_size, "on_error": "skip"}
    whole = list(read_prompts(path, **options))
    assert sum(b.n_source_rows for b in whole) == 23
    assert sum(len(b.rejected) for b in whole) == 7
    if part_size is not None:
        assert all(b.first_row // part_size == (b.end_row - 1) // part_size for b in whole)
    for first in (0, part_size or batch, 2 * (part_size or batch), 23, 30):
        rest = list(read_prompts(path, first_row=first, **options))
        expected = [b for b in whole if b.first_row >= first]
        assert [b.prompts for b in rest] == [b.prompts for b in expected]
        assert [b.rows.tolist() for b in rest] == [b.rows.tolist() for b in expected]
        assert [b.rejected for b in rest] == [b.rejected for b in expected]
        assert [list(b.fields) for b in rest] == [list(b.fields) for b in expected]


def test_row_groups_that_are_passed_over_are_not_decoded(tmp_path):
    prompts = [f"prompt {i} {os.urandom(50).hex()}" for i in range(1000)]
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": prompts}), path, row_group_size=100, compression="none")
    content = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    damaged = content[:start] + bytes(column.total_compressed_size)
    write(path, damaged + content[len(damaged) :])
    with pytest.raises(ValueError, match=r"p\.parquet: found rows that cannot be read"):
        all_prompts(path)
    assert all_prompts(path, first_row=250) == prompts[250:]


def test_bad_records_come_with_their_text(tmp_path):
    def rejected(name, content):
        batches = read_prompts(write(tmp_path / name, content), on_error="skip", batch=2)
        return [(r.row, r.line, r.raw) for b in batches for r in b.rejected]

    assert rejected("p.jsonl", b'{"prompt": "a"}\n\xff{\r\n' + b"x" * 5000) == [
        *((1, 2, "\\xff{"), (2, 3, "x" * 1000))
    ]
    assert rejected("p.csv", 'prompt,n\n"a\nb",1\n"é\n\n",2,3\n,4\n') == [
        *((1, 4, '"é\n\n",2,3'), (2, 7, ",4"))
    ]
    assert rejected("p.csv", b'prompt\na\n\xff\n"b\n\xe9"\nc\n"d\n') == [
        *((1, 3, "\\xff"), (2, 4, '"b\n\\xe9"'), (4, 7, '"d'))
    ]
    pq.write_table(pa.table({"prompt": [" ", "a", None]}), tmp_path / "p.parquet")
    (batch,) = read_prompts(tmp_path / "p.parquet", on_error="skip")
    assert [(r.row, r.line, r.raw) for r in batch.rejected] == [(0, None, " "), (2, None, None)]


ODD = ["a", "\u3000", "日本", None, "\x1c", "\u2003é", "", "\x7f", "\u200b", " \n", "b"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
@pytest.mark.parametrize("batch", [3, 100])
def test_a_parquet_column_is_checked_as_its_strings_are(tmp_path, kind, batch):
    column = pa.array(ODD, pa.string()).cast(kind)
    pq.write_table(pa.table({"prompt": column, "n": range(len(ODD))}), tmp_path / "p.parquet")
    batches = list(read_prompts(tmp_path / "p.parquet", on_error="skip", batch=batch))
    good = {i: text for i, text in enumerate(ODD) if wrong_prompt(text) is None}
    assert sorted(good) == [0, 2, 5, 7, 8, 10]
    assert all(b.texts.type == pa.string() for b in batches)
    assert [text for b in batches for text in b.texts.to_pylist()] == list(good.values())
    assert [text for b in batches for text in b.prompts] == list(good.values())
    assert [row for b in batches for row in b.rows] == list(good)
    assert [n for b in batches for n in b.fields.column("n").to_pylist()] == list(good)
    found = {r.row: (r.reason, r.raw) for b in batches for r in b.rejected}
    assert found == {i: (wrong_prompt(t), t) for i, t in enumerate(ODD) if i not in good}


def test_a_parquet_prompt_that_is_not_utf8_cannot_be_read(tmp_path):
    texts = pa.array([b"a", b"\xff b"]).view(pa.string())
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "p.parquet")
    with pytest.raises(ValueError, match=r"p\.parquet: found rows that cannot be read \(.*UTF"):
        all_prompts(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    ("stdin", "expected"),
    [(b'{"prompt": "a"}\n', ["a"]), (b'a\n{"prompt": "b"}\n', ["a", '{"prompt": "b"}'])],
)
def test_stdin_goes_by_its_first_byte(monkeypatch, stdin, expected):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
    assert all_prompts("-") == expected


BAD = [
    ("p.jsonl", '{"prompt": "a"}\n{"prompt"\n', "line 2: found text that is not JSON"),
    ("p.jsonl", '{"prompt": "a"}\n\n\n', "line 2: found an empty line"),
    ("p.jsonl", b'{"prompt": "a"}\n{\x00"\x00\n', "line 2: found text that is not JSON"),
    ("p.txt", "a\n\n\n", "line 2: found an empty prompt"),
    ("p.csv", "prompt,x\na,1\n\n\n", "line 3: found 0 cells, expected 2"),
    ("p.jsonl", '{"prompt": "a"}\n[1]\n', "line 2: found a JSON list, expected an object"),
    ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', "line 2: found no field 'prompt'"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": null}\n', "line 2: found null, expected text"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": 5}\n', "line 2: found a prompt of type int"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": " "}\n', "line 2: found an empty prompt"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b", "x": NaN}\n', "line 2: .*NaN is no JSON number"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": "\\ud800"}\n', "line 2: found half a surrogate"),
    ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', "line 2: found text that is not UTF-8"),
    ("p.txt", b"a\n\xff\n", "line 2: found text that is not UTF-8"),
    ("p.txt", "a\n\nb\n", "line 2: found an empty prompt"),
    ("p.csv", "prompt,x\na,1\nb\n", "line 3: found 1 cell, expected 2"),
    ("p.csv", 'prompt,x\n"a\nb",1\n,2\n', "line 4: found an empty prompt"),
    ("p.csv", 'prompt,x\na,1\n"b"c,2\n', "line 3: found no CSV record"),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "a\nb\n"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n'),
        ("p.csv", "prompt\na\nb\n"),
    ],
)
def test_one_empty_line_at_the_end_is_no_record(tmp_path, name, content, end):
    whole = write(tmp_path / name, content.replace("\n", end) + end)
    assert all_prompts(whole) == ["a", "b"]
    assert sum(batch.n_source_rows for batch in read_prompts(whole)) == 2


def test_an_empty_line_alone_is_a_bad_record(tmp_path):
    with pytest.raises(ValueError, match="line 1: found an empty prompt"):
        all_prompts(write(tmp_path / "p.txt", "\n"))


@pytest.mark.parametrize("length", [100_000, 1_000_000])
def test_a_long_csv_prompt_leaves_the_limit_of_the_csv_module_alone(tmp_path, length):
    before = csv.field_size_limit()
    line = "x" * 99
    prompts = [f"{line}\n" * (length // 100), "y" * length, 'say ""'.replace('""', '"')]
    with open(tmp_path / "p.csv", "w", newline="") as file:
        csv.writer(file).writerows([["prompt"], *([p] for p in prompts)])
    assert all_prompts(tmp_path / "p.csv") == prompts
    assert csv.field_size_limit() == before == 131_072


@pytest.mark.parametrize(("name", "content", "words"), BAD)
def test_a_bad_record_names_file_and_line(tmp_path, name, content, words):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=words) as error:
        all_prompts(path)
    assert str(error.value).startswith(f"{path}, line")


@pytest.mark.parametrize(("name", "content", "words"), BAD)
def test_skipping_lists_every_bad_record(tmp_path, name, content, words):
    path = write(tmp_path / name, content)
    batches = list(read_prompts(path, on_error="skip"))
    messages = [m for b in batches for m in b.skipped]
    assert len(messages) == 1
    assert batches[0].prompts[0].startswith("a")
    n_kept = sum(len(b.prompts) for b in batches)
    assert n_kept == sum(b.n_source_rows for b in batches) - 1


def test_skipping_in_parquet_keeps_the_positions(tmp_path):
    pq.write_table(
        pa.table({"prompt": ["a", None, "", "d"], "id": [1, 2, 3, 4]}), tmp_path / "p.parquet"
    )
    (batch,) = read_prompts(tmp_path / "p.parquet", on_error="skip")
    assert batch.prompts == ["a", "d"]
    assert batch.rows.tolist() == [0, 3]
    assert batch.fields.to_pylist() == [{"id": 1}, {"id": 4}]
    assert [m.split(": ", 1)[1] for m in batch.skipped] == [
        "found null, expected text",
        "found an empty prompt, expected text",
    ]


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("p.json", "{}", {}, "suffix says no format"),
        ("p", "x", {}, "suffix says no format"),
        ("p.parquet.gz", "x", {}, "a compressed Parquet file cannot be read"),
        ("p.parquet.zst", "x", {}, "a compressed Parquet file cannot be read"),
        ("p.parquet", "not parquet at all", {}, "found no readable Parquet file"),
        ("p.csv", "", {}, "found an empty file, expected a header line"),
        ("p.csv", "text\nx\n", {}, r"found columns \['text'\], expected 'prompt'"),
        ("p.csv", "prompt,prompt\nx,y\n", {}, "found several columns named 'prompt', expected one"),
        ("p.csv", b"prompt\n\xff\n", {}, "line 2: found text that is not UTF-8"),
        ("p.txt", "x\n", {"batch": 0}, "batch is 0, expected at least 1"),
        ("p.txt", "x\n", {"on_error": "ignore"}, "expected 'raise' or 'skip'"),
        ("p.txt", "x\n", {"format": "xml"}, "expected one of txt, jsonl, parquet, csv"),
    ],
)
def test_a_bad_file_or_argument_is_named(tmp_path, name, content, options, words):
    with pytest.raises(ValueError, match=words):
        all_prompts(write(tmp_path / name, content), **options)


def test_a_parquet_column_of_another_type_is_refused(tmp_path):
    pq.write_table(pa.table({"prompt": [1, 2]}), tmp_path / "p.parquet")
    with pytest.raises(ValueError, match="column 'prompt' is int64, expected string"):
        all_prompts(tmp_path / "p.parquet")
    with pytest.raises(ValueError, match=r"found columns \['prompt'\], expected one 'text'"):
        all_prompts(tmp_path / "p.parquet", prompt_column="text")


@pytest.mark.parametrize("name", ["no.txt", "no.parquet"])
def test_a_missing_file_is_missing(tmp_path, name):
    with pytest.raises(FileNotFoundError):
        all_prompts(tmp_path / name)


# --- embeddings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_embeddings_come_in_blocks(tmp_path, dtype):
    rows = np.arange(22, dtype=dtype).reshape(11, 2)
    np.save(tmp_path / "e.npy", rows)
    with EmbeddingFile(tmp_path / "e.npy") as file:
        blocks = [file.take(4) for _ in range(4)]
    assert [len(b) for b in blocks] == [4, 4, 3, 0]
    assert {b.dtype for b in blocks} == {np.dtype(dtype)}
    np.testing.assert_array_equal(np.concatenate(blocks), rows)


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        (np.zeros((2, 2)), TypeError, r"e\.npy must be float16 or float32, got float64"),
        (np.zeros((2, 2), ">f4"), TypeError, r"e\.npy must be float16 or float32, got >f4"),
        (np.zeros(4, np.float32), ValueError, r"shape \(4,\), expected \(n_records, dim\)"),
        (np.zeros((3, 2), np.float32, order="F"), ValueError, "Fortran order"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, error, words):
    np.save(tmp_path / "e.npy", array)
    with pytest.raises(error, match=words):
        EmbeddingFile(tmp_path / "e.npy")


def test_cut_and_foreign_embeddings_are_refused(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((4, 2), np.float32))
    whole = (tmp_path / "e.npy").read_bytes()
    write(tmp_path / "cut.npy", whole[:-8])
    with pytest.raises(ValueError, match=f"found {len(whole) - 8} bytes, expected {len(whole)}"):
        EmbeddingFile(tmp_path / "cut.npy")
    write(tmp_path / "text.npy", "no array")
    with pytest.raises(ValueError, match=r"text\.npy: found no \.npy array"):
        EmbeddingFile(tmp_path / "text.npy")


def test_embeddings_follow_the_records_that_were_kept(tmp_path):
    write(tmp_path / "p.txt", "a\n\nc\nd\ne\n")
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.save(tmp_path / "e.npy", rows)
    batches = read_prompts(tmp_path / "p.txt", on_error="skip", batch=2)
    found = list(with_embeddings(batches, tmp_path / "e.npy"))
    assert [b.prompts for b, _ in found] == [["a"], ["c", "d"], ["e"]]
    np.testing.assert_array_equal(np.concatenate([e for _, e in found]), rows[[0, 2, 3, 4]])


@pytest.mark.parametrize("first_row", [0, 2, 4, 5])
def test_embeddings_keep_in_step_with_the_records_passed_over(tmp_path, first_row):
    write(tmp_path / "p.txt", "a\n\nc\nd\ne\n")
    rows = np.arange(10, dtype=np.float16).reshape(5, 2)
    np.save(tmp_path / "e.npy", rows)
    batches = read_prompts(tmp_path / "p.txt", on_error="skip", first_row=first_row, batch=2)
    found = list(with_embeddings(batches, tmp_path / "e.npy", first_row=first_row))
    kept = [i for i in (0, 2, 3, 4) if i >= first_row]
    assert [p for b, _ in found for p in b.prompts] == ["a?cde"[i] for i in kept]
    blocks = [np.empty((0, 2), np.float16), *(e for _, e in found)]
    np.testing.assert_array_equal(np.concatenate(blocks), rows[kept])


@pytest.mark.parametrize("n_embeddings", [3, 7])
def test_the_number_of_embeddings_is_compared(tmp_path, n_embeddings):
    write(tmp_path / "p.txt", "a\nb\nc\nd\ne\n")
    np.save(tmp_path / "e.npy", np.ones((n_embeddings, 2), np.float32))
    batches = read_prompts(tmp_path / "p.txt", batch=2)
    with pytest.raises(ValueError, match=f"has {n_embeddings} embeddings, the prompts are 5"):
        list(with_embeddings(batches, tmp_path / "e.npy"))


# --- decisions -----------------------------------------------------------------------------------


def convert(source: Path, target: Path, batch: int = 2, **options: object) -> None:
    with open_decisions(target, **options) as writer:
        for found in read_prompts(source, batch=batch):
            writer.write(found, decisions(len(found.prompts)))


def test_jsonl_holds_the_input_then_the_decision(tmp_path):
    write(tmp_path / "p.jsonl", '{"id": 7, "prompt": "é", "x": {"y": []}}\n{"prompt": "b"}\n')
    convert(tmp_path / "p.jsonl", tmp_path / "o.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert list(rows[0]) == [
        *("id", "x", "prompt", "model", "score", "margin", "distance", "fallback")
    ]
    assert rows[0] == {
        **{"id": 7, "x": {"y": []}, "prompt": "é", "model": "a", "score": 0.1},
        **{"margin": 0.05, "distance": 0.1, "fallback": False},
    }
    assert rows[1]["distance"] is None
    assert rows[1]["fallback"] is True


def test_csv_and_parquet_hold_the_same(tmp_path):
    write(tmp_path / "p.jsonl", '{"id": 7, "prompt": "a,\\n"}\n{"id": 8, "prompt": "b"}\n')
    convert(tmp_path / "p.jsonl", tmp_path / "o.csv")
    with open(tmp_path / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["prompt"] for r in rows] == ["a,\n", "b"]
    assert [r["distance"] for r in rows] == ["0.1", ""]
    assert [r["fallback"] for r in rows] == ["false", "true"]
    convert(tmp_path / "p.jsonl", tmp_path / "o.parquet")
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.schema.names == [
        *("id", "prompt", "model", "score", "margin", "distance", "fallback")
    ]
    assert table["score"].type == pa.float32()
    assert table["id"].to_pylist() == [7, 8]
    assert table["model"].to_pylist() == ["a", "b"]
    np.testing.assert_array_equal(table["score"].to_numpy(), np.float32([0.1, 0.9]))


def test_scores_survive_the_text_formats_bit_by_bit(tmp_path):
    rng = np.random.default_rng(5)
    n = 2000
    values = (rng.standard_normal(n) * 10.0 ** rng.integers(-8, 3, n)).astype(np.float32)
    found = decisions(n)
    found = Decisions(found.models, found.model, values, values, values, found.fallback)
    write(tmp_path / "p.txt", "x\n" * n)
    (batch,) = read_prompts(tmp_path / "p.txt")
    for name in ("o.jsonl", "o.csv"):
        with open_decisions(tmp_path / name, prompt_column=None) as writer:
            writer.write(batch, found)
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    np.testing.assert_array_equal(np.float32([json.loads(t)["score"] for t in lines]), values)
    with open(tmp_path / "o.csv") as file:
        texts = [row["margin"] for row in csv.DictReader(file)]
    np.testing.assert_array_equal(np.array(texts, np.float32), values)


def test_parquet_columns_pass_through_with_their_types(tmp_path):
    table = pa.table({"prompt": ["a", "b"], "n": pa.array([1, None], pa.int8())})
    pq.write_table(table, tmp_path / "p.parquet")
    convert(tmp_path / "p.parquet", tmp_path / "o.parquet", prompt_column=None)
    out = pq.read_table(tmp_path / "o.parquet")
    assert out.schema.field("n").type == pa.int8()
    assert "prompt" not in out.schema.names


def test_numbers_that_seldom_recur_have_no_dictionary_in_parquet(tmp_path):
    tags = [["x", "y"], ["x"]]
    pq.write_table(pa.table({"prompt": ["a", "b"], "tags": tags}), tmp_path / "p.parquet")
    convert(tmp_path / "p.parquet", tmp_path / "o.parquet", prefix="r_")
    group = pq.ParquetFile(tmp_path / "o.parquet").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    plain = [c.path_in_schema for c in columns if not c.has_dictionary_page]
    assert plain == ["r_distance", "r_fallback"]  # Parquet has no dictionaries of bools
    assert len(columns) == 7 and pq.read_table(tmp_path / "o.parquet")["tags"].to_pylist() == tags


def test_not_finite_input_becomes_null_in_jsonl(tmp_path):
    pq.write_table(pa.table({"prompt": ["a", "b"], "x": [np.nan, 2.0]}), tmp_path / "p.parquet")
    convert(tmp_path / "p.parquet", tmp_path / "o.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [r["x"] for r in rows] == [None, 2.0]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_no_prompts_make_a_whole_empty_file(tmp_path, suffix):
    write(tmp_path / "p.txt", "")
    convert(tmp_path / "p.txt", tmp_path / f"o.{suffix}")
    if suffix == "parquet":
        assert pq.read_table(tmp_path / "o.parquet").num_rows == 0
    else:
        header = "prompt,model,score,margin,distance,fallback\n" if suffix == "csv" else ""
        assert (tmp_path / f"o.{suffix}").read_text() == header


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_name_taken_by_the_input_is_an_error_or_gets_a_prefix(tmp_path, suffix):
    write(tmp_path / "p.jsonl", '{"prompt": "a", "model": "mine"}\n')
    target = tmp_path / f"o.{suffix}"
    with pytest.raises(ValueError, match="input record 0 has a field 'model' already"):
        convert(tmp_path / "p.jsonl", target)
    assert os.listdir(tmp_path) == ["p.jsonl"]
    convert(tmp_path / "p.jsonl", target, prefix="routed_")
    assert sorted(os.listdir(tmp_path)) == sorted(["p.jsonl", target.name])


@pytest.mark.parametrize(
    ("suffix", "late", "words"),
    [
        ("csv", '{"prompt": "c", "new": 1}', "input record 2 has a field 'new' that no record"),
        ("parquet", '{"prompt": "c", "new": 1}', "input record 2 has a field 'new' that no record"),
        ("parquet", '{"prompt": "c", "x": "text"}', "field 'x' is string, in the first batch"),
        ("parquet", '{"prompt": "c", "x": 1.5}', "field 'x' is double, in the first batch"),
    ],
)
def test_fields_that_change_are_refused_not_dropped(tmp_path, suffix, late, words):
    write(tmp_path / "p.jsonl", '{"prompt": "a", "x": 1}\n{"prompt": "b", "x": 2}\n' + late + "\n")
    with pytest.raises(ValueError, match=words):
        convert(tmp_path / "p.jsonl", tmp_path / f"o.{suffix}")
    assert os.listdir(tmp_path) == ["p.jsonl"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_errors_of_the_system_name_the_output(tmp_path, monkeypatch, suffix):
    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:  # noqa: SIM117
        with open_decisions(tmp_path / f"o.{suffix}"):
            pass
    assert error.value.filename == str(tmp_path / f"o.{suffix}")
    # this name may be, but not that of the unfinished file, which is longer
    long = tmp_path / f"{'x' * 245}.{suffix}"
    with pytest.raises(OSError, match="name too long") as error:
        open_decisions(long)
    assert error.value.filename == str(long)
    assert os.listdir(tmp_path) == []


def test_outputs_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the suffix is none of \.jsonl, \.parquet, \.csv"):
        open_decisions(tmp_path / "o.txt")
    with pytest.raises(ValueError, match="there is no directory"):
        open_decisions(tmp_path / "no" / "o.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(ValueError, match="is no regular file"):
        open_decisions(tmp_path / "d.csv")


def test_lengths_must_agree(tmp_path):
    write(tmp_path / "p.txt", "a\nb\n")
    (batch,) = read_prompts(tmp_path / "p.txt")
    with (
        pytest.raises(ValueError, match="3 decisions for 2 prompts"),
        open_decisions(tmp_path / "o.csv") as writer,
    ):
        writer.write(batch, decisions(3))
    assert os.listdir(tmp_path) == ["p.txt"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_killed_run_leaves_the_old_file(tmp_path, suffix):
    target = write(tmp_path / f"o.{suffix}", "old")
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_prompt_files import decisions
from benchrouter.batch.prompts import read_prompts
from benchrouter.batch.records import wrong_prompt
from benchrouter.batch.writers import open_decisions
writer = open_decisions({str(target)!r})
for batch in read_prompts({str(write(tmp_path / "p.txt", "x" * 99 + chr(10)))!r}):
    for _ in range(2000):
        writer.write(batch, decisions(1))
print("written", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert target.read_text() == "old"
    partial = [name for name in os.listdir(tmp_path) if name.endswith(".partial")]
    assert len(partial) == 1
    assert partial[0].startswith(f".o.{suffix}.")
