"""What fuzz_readers.py damages: a small valid example of every format, and ways to damage bytes.

A format is added by a function that writes an example into an empty folder and returns the path to
read, listed in fuzz_formats.py under a name that begins with the format's.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_formats
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from benchrouter.tables.formats import FORMATS
from benchrouter.tables.sources.open import SUFFIXES

Example = Callable[[Path], Path]

SIDECAR = {
    "key_columns": ["dataset", "sample_id"],
    "prompt_column": "prompt",
    "model_params_billion": {"a": 7, "b": None},
    "model_price_usd_per_million_tokens": {"a": [0.1, 0.2]},
    "metrics": {"d": "f1"},
    "thresholds": {"d": 0.25, "e": None},
}


def format_name(example: str) -> str:
    """Name of the format that an example is of."""
    return example.split(",")[0]


def wide_rows() -> list[dict[str, Any]]:
    return [
        {
            "dataset": "de"[i % 2],
            "sample_id": f"s{i}",
            "prompt": f'say "{i}",\nplease\u2028\u00e9',
            "a": i / 4,
            "b": None if i == 2 else 1,
            "cost::a": i * 1e-6,
            "log_likelihood::b": -1.5 * i,
        }
        for i in range(5)
    ]


def long_rows() -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "dataset": "d",
            "sample_id": 2**53 + i,
            "prompt": f"prompt {i}",
            "score": i / 2,
            "cost_usd": 1e-6,
            "answer": "x" * i,
        }
        for model in "ab"
        for i in range(3)
    ]


def table(folder: Path, *, layout: str, suffix: str) -> Path:
    """One of our own tables, with a sidecar."""
    rows = wide_rows() if layout == "wide" else long_rows()
    content = io.BytesIO()
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), content, row_group_size=3)
    elif suffix.startswith(".csv"):
        arrow_csv.write_csv(pa.Table.from_pylist(rows), content)
    else:
        content.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    path = folder / f"t{suffix}"
    path.write_bytes(packed(path, content.getvalue()))
    (folder / "t.json").write_text(json.dumps(SIDECAR | {"layout": layout}))
    return path


EXAMPLES: dict[str, Example] = {
    f"table, {layout}{suffix}": partial(table, layout=layout, suffix=suffix)
    for layout in ("wide", "long")
    for suffix in SUFFIXES
} | {name: make for name, make in fuzz_formats.EXAMPLES.items() if format_name(name) in FORMATS}


def packed(path: Path, content: bytes) -> bytes:
    """Compress as a file's suffix says."""
    if path.suffix == ".gz":
        return gzip.compress(content, mtime=0)
    return pa.compress(content, "zstd", asbytes=True) if path.suffix == ".zst" else content


def unpacked(path: Path) -> bytes:
    """Content of a file, compressed or not."""
    if path.suffix not in (".gz", ".zst"):
        return path.read_bytes()
    with pa.input_stream(str(path), compression={".gz": "gzip", ".zst": "zstd"}[path.suffix]) as f:
        return f.read()


def damage(path: Path, rng: random.Random) -> None:
    """Change some bytes of a file; of a compressed one mostly what it holds."""
    if rng.random() < 0.2:
        path.write_bytes(mutated(path.read_bytes(), rng))
    else:
        path.write_bytes(packed(path, mutated(unpacked(path), rng)))


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Apply one to three mutations."""
    is_text = b"\0" not in content
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if is_text and rng.random() < 0.6:
            content = swapped_token(content, rng)
        else:
            content = rng.choice(OF_BYTES)(content, rng)
    return content


TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|[{}\[\],:\n]|\w+')
ODD_TOKENS = [
    b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"0.1", b"1e-400", b"01", b"-", b"nan",
    b"9007199254740993", b"9223372036854775807", b"9223372036854775808", b"1" + b"0" * 400,
    b"9" * 5000, b"", b" ", b"\n", b"\r", b"\0", b",", b":", b"{", b"}", b"[", b"]", b"{}", b"[]",
    b'"', b'""', b'" "', b'"x"', b'"\\ud800"', b'"\\u0000"', b"'", b"\\", b"\xff", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", "\u2028".encode(), b"[" * 20_000, b'{"a":' * 20_000,
    *(b"[" * n + b"]" * n for n in (100, 900, 950, 960, 970, 980)),
    *(b'{"a":' * n + b"1" + b"}" * n for n in (100, 900, 950, 960, 970, 980)),
    b'"' + b"y" * 5000 + b'"', b'{"a": 1, "a": 2}',
]  # fmt: skip


def swapped_token(content: bytes, rng: random.Random) -> bytes:
    """Put another token of the text, or an odd one, where one stands."""
    spans = [match.span() for match in TOKEN.finditer(content)]
    if not spans:
        return content
    start, end = rng.choice(spans)
    others = [content[slice(*rng.choice(spans))], rng.choice(ODD_TOKENS)]
    new = rng.choice(others)
    return content[:start] + new + content[end if rng.random() < 0.8 else start :]


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, rng: random.Random) -> bytes:
    at, new = rng.randrange(len(content) + 1), rng.choice([b"\0", b"\xff", b"\x7f", b"\x80"])
    return content[:at] + new * rng.choice([1, 4, 8]) + content[at + 1 :]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def deleted(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + content[at + rng.choice([1, 2, 10, 100]) :]


def inserted(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.choice([1, 2, 10, 100])) + content[at:]


def doubled(content: bytes, rng: random.Random) -> bytes:
    at, to = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:to] + content[at:to] + content[to:]


OF_BYTES = [flipped, flipped, overwritten, cut, deleted, inserted, doubled]
