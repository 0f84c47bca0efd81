"""Small inputs of every format in golden/, made by hand, and the tables that they stand for."""

from __future__ import annotations

import gzip
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from benchrouter import BenchmarkTable, read_table

FOLDER = Path(__file__).parent / "golden"
NAN = float("nan")
# Past the whole numbers that a float64 tells apart, and past those of int64.
LARGE, LARGER = "9007199254740993", "18446744073709551615"
PRIMES = "Name\u2028two\u0085primes."


@dataclass(frozen=True)
class Golden:
    """An input and its table.

    Attributes
    ----------
    source : str
        Pattern of the files in golden/, or a folder there.
    records : list of tuple
        dataset, sample_id, prompt, and a score for each model.
    costs, log_likelihoods : list of list of float, optional
        Of every record and model.
    metrics : dict of str to tuple
        A dataset's metric and threshold.
    missing : str
        How the input spells the score that is missing.
    options : dict
        What is asked for beside the source.
    """

    source: str
    models: tuple[str, ...]
    records: list[tuple]
    metrics: dict[str, tuple[str, float]]
    missing: str
    costs: list[list[float]] | None = None
    log_likelihoods: list[list[float]] | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_csv(self) -> bool:
        return self.source.endswith(".csv")

    def files(self, folder: Path = FOLDER) -> list[Path]:
        """All files of the input in a copy of golden/."""
        return sorted(path for path in folder.rglob("*") if path.is_file() and self._has(path))

    def _has(self, path: Path) -> bool:
        of_folder = f"/golden/{self.source}/" in path.as_posix()
        return of_folder or path.match(f"golden/{self.source}")

    def copy(self, folder: Path, change=lambda data: data, suffix: str = "") -> Path:
        """Copy the input to `folder`/golden with every file's bytes changed."""
        for path in self.files():
            target = folder / "golden" / path.relative_to(FOLDER)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(target.name + suffix).write_bytes(change(path.read_bytes()))
        return folder / "golden"

    def read(self, folder: Path = FOLDER, suffix: str = "", **more) -> BenchmarkTable:
        """Read the input in a copy of golden/, whose files have a further suffix."""
        paths = [folder / self.source]
        if not paths[0].is_dir():
            paths = sorted(folder.glob(self.source + suffix))
        return read_table(paths, **self.options, **more)

    def check(self, table: BenchmarkTable) -> None:
        """Compare everything that a table says of the benchmark."""
        datasets, sample_ids, prompts, *scores = zip(*self.records, strict=True)
        assert table.models == self.models
        assert [table.datasets[code] for code in table.dataset] == list(datasets)
        assert table.sample_ids == list(sample_ids)
        assert table.prompts == list(prompts)
        assert_array_equal(table.scores, np.array(scores, np.float32).T)
        for found, expected in (
            (table.cost_usd, self.costs),
            (table.log_likelihood, self.log_likelihoods),
        ):
            if expected is None:
                assert found is None
            else:
                assert_array_equal(found, expected)
        assert set(table.datasets) == set(self.metrics)
        names, thresholds = zip(*(self.metrics[name] for name in table.datasets), strict=True)
        assert table.metrics == names
        assert_array_equal(table.thresholds, thresholds)
        assert table.skipped == ()


GOLDEN = [
    Golden(
        # Two splits; scores and log-likelihoods of org/big are means of two train trials; an
        # instance with typos, left out; the main metric of each group.
        "helm",
        ("org/big", "org/small"),
        [
            ("mmlu:subject=maths,method=joint", f"id{LARGE}", "What is 2 + 2?", 0.5, 1),
            ("mmlu:subject=maths,method=joint", LARGER, PRIMES, 1, NAN),
            ("narrative_qa", "id7", "Is a promise a contract?", NAN, 0.25),
        ],
        {
            "mmlu:subject=maths,method=joint": ("exact_match", 0.5),
            "narrative_qa": ("f1_score", 0.5),
        },
        missing='"mean": NaN',
        log_likelihoods=[[-0.5, -0.75], [-1.125, -2], [NAN, -1.5]],
    ),
    Golden(
        # Of "maths" a row for each of two filters; of "law" the likelier choice's log-likelihood.
        "lm_eval",
        ("org/big", "org/small"),
        [
            ("law", "7", "Is a promise a contract?", 0, 1),
            ("maths", LARGE, "Question: What is 2 + 2?\nAnswer:", 1, 0),
            ("maths", LARGER, f"Question: {PRIMES}\nAnswer:", 1, NAN),
        ],
        {"law": ("acc", 0.5), "maths": ("exact_match,strict-match", 0.5)},
        missing='"exact_match": NaN',
        log_likelihoods=[[-0.5, -0.25], [NAN, NAN], [NAN, NAN]],
    ),
    Golden(
        # Version 0.4.0: one JSON array, whose name begins with the model's arguments.
        "lm_eval_2023",
        ("org/small",),
        [
            ("maths", LARGE, "Question: What is 2 + 2?\nAnswer:", 1),
            ("maths", LARGER, f"Question: {PRIMES}\nAnswer:", NAN),
        ],
        {"maths": ("exact_match,get-answer", 0.5)},
        missing='"exact_match": NaN',
    ),
    Golden(
        "every_eval_ever",
        ("org/big", "org/small"),
        [
            ("law", "7", "Is a promise a contract?", 0, 1),
            ("maths", LARGE, "What is 2 + 2?", 1, 0),
            ("maths", LARGER, PRIMES, 1, NAN),
        ],
        {"law": ("accuracy", 0.5), "maths": ("accuracy", 0.5)},
        missing='"score": null',
    ),
    *(
        Golden(
            f"mixinstruct/test.{suffix}",
            ("big-7b", "small-1b"),
            [
                ("maths", LARGE, "What is\n2 + 2?", *first),
                ("mix-instruct", LARGER, PRIMES, *second),
                ("law", "7", "Is a promise a contract?", *third),
            ],
            {name: (metric, NAN) for name in ("law", "maths", "mix-instruct")},
            missing='"bertscore": null',
            options=options,
        )
        for suffix in ("json", "jsonl")
        for metric, options, first, second, third in (
            ("bertscore", {}, (0.75, 0.5), (0.625, NAN), (0.25, NAN)),
            ("bartscore", {"metric": "bartscore"}, (-2.5, -3), (-1.5, -4), (-5, NAN)),
        )
    ),
    Golden(
        "routerbench/routerbench.csv",
        ("org/big", "org/small"),
        [
            ("maths", f"maths.val.{LARGE}", "What is 2 + 2?", 1, 0),
            ("maths", LARGER, f"{PRIMES}\nOnly two.", 0.5, NAN),
            ("law", "law.test.7", "Is a promise a contract?", 0, 1),
        ],
        {"law": ("", 0.5), "maths": ("", 0.5)},
        missing="NA",
        costs=[[0.25, 0.03125], [0.5, NAN], [0.125, 0.0625]],
    ),
    Golden(
        "embedllm/train.csv",
        ("org__big", "org__small"),
        [
            ("maths", LARGE, "What is 2 + 2?", 1, 0),
            ("maths", LARGER, PRIMES, 1, NAN),
            ("law", "7", "Is a promise a contract?", NAN, 1),
        ],
        {"law": ("", 0.5), "maths": ("", 0.5)},
        missing="NA",
        options={"preset": "embedllm"},
    ),
    Golden(
        # A dataset a file, whose rows are numbered from 1.
        "routellm/*.csv",
        ("mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview"),
        [
            ("gsm8k_responses", "1", "What is 2 + 2?", 0, 1),
            ("gsm8k_responses", "2", PRIMES, NAN, 1),
            ("mmlu_law", "1", "Is a promise a contract?", 1, 0),
        ],
        {"gsm8k_responses": ("", 0.5), "mmlu_law": ("", 0.5)},
        missing="NA",
        options={"preset": "routellm"},
    ),
    *(
        Golden(
            f"{layout}/results.{suffix}",
            ("org/big", "org/small"),
            [
                ("maths", LARGE, "What is 2 + 2?", 1, 0.5),
                ("maths", LARGER, PRIMES, 1, NAN),
                ("law", "7", "Is a promise a contract?", NAN, 1),
            ],
            {"law": ("", 0.5), "maths": ("", 0.5)},
            missing=missing,
            costs=[[0.25, 0.03125], [0.5, NAN], [NAN, 0.0625]],
            log_likelihoods=[[-0.5, -1.5], [NAN, -2], [NAN, -0.25]],
        )
        for layout, suffix, missing in (
            ("long", "csv", "NA"),
            ("long", "jsonl", '"score": null'),
            ("wide", "csv", "NA"),
            ("wide", "jsonl", '"org/small": null'),
        )
    ),
]


def named(golden):
    return "-".join([golden.source, *golden.options.values()])


each = pytest.mark.parametrize("golden", GOLDEN, ids=named)


@each
def test_the_table(golden):
    golden.check(golden.read())


@each
def test_the_input_holds_what_trips_readers(golden):
    """Else an editor has changed it, and the other tests here have less to find."""
    text = "".join(path.read_bytes().decode() for path in golden.files())
    assert PRIMES in text and "\r" not in text and "\ufeff" not in text
    assert golden.source.startswith("routellm") or (LARGE in text and LARGER in text)
    assert text.count(golden.missing) == 1


def with_bom(data):
    return b"\xef\xbb\xbf" + data


def with_crlf(data):
    return data.replace(b"\n", b"\r\n")


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@each
@pytest.mark.parametrize("text", [(), (with_bom,), (with_crlf,), (with_bom, with_crlf)])
@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstd)])
def test_a_byte_order_mark_carriage_returns_and_compression(tmp_path, golden, text, suffix, pack):
    def change(data):
        for step in text:
            data = step(data)
        return pack(data)

    golden.check(golden.read(golden.copy(tmp_path, change, suffix), suffix))


@pytest.mark.parametrize("golden", [golden for golden in GOLDEN if golden.is_csv], ids=named)
def test_parquet(tmp_path, golden):
    as_text = {name: pa.string() for name in ("sample_id", "prompt_id")}
    options = pa.csv.ConvertOptions(column_types=as_text, strings_can_be_null=False)
    for path in golden.files(golden.copy(tmp_path)):
        pq.write_table(pa.csv.read_csv(path, convert_options=options), path.with_suffix(".parquet"))
        path.unlink()
    paths = sorted(tmp_path.rglob("*.parquet"))
    golden.check(read_table(paths, **golden.options))


def respelled(golden, folder, spelling):
    """Copy the input with its missing score spelled otherwise."""
    before, space, _ = golden.missing.rpartition(" ")
    old, new = golden.missing.encode(), f"{before}{space}{spelling}".encode()
    return golden.copy(folder, lambda data: data.replace(old, new))


@each
@pytest.mark.parametrize("number", range(6))
def test_missing_spelled_six_ways(tmp_path, golden, number):
    spelled = ["NaN", "null", '"NaN"', '"nan"', '""', '"NA"']
    if golden.is_csv:
        spelled = ["NaN", "null", "nan", "NULL", "", "NA"]
    golden.check(golden.read(respelled(golden, tmp_path, spelled[number])))


@pytest.mark.parametrize(
    "golden", [golden for golden in GOLDEN if "metric" not in golden.options], ids=named
)
def test_a_score_that_is_none_is_named(tmp_path, golden):
    folder = respelled(golden, tmp_path, "bad" if golden.is_csv else '"bad"')
    with pytest.raises(ValueError, match="'bad', expected") as caught:
        golden.read(folder)
    bad = next(path for path in golden.files(folder) if b"bad" in path.read_bytes())
    assert str(bad) in str(caught.value)
    assert len(golden.read(folder, on_error="skip").skipped) == 1


# JSON's objects as they begin, in the middle of a line too.
FIRST_KEY = re.compile(rb'\{\s*("[\w:/]+": )')


@each
@pytest.mark.parametrize("which", [0, -1])
def test_a_key_that_stands_twice_is_named(tmp_path, golden, which):
    """In the first object of every file, and in the last, which lies inside another."""
    for path in golden.files():
        shutil.rmtree(tmp_path / "golden", ignore_errors=True)
        folder = golden.copy(tmp_path)
        changed = folder / path.relative_to(FOLDER)
        data = changed.read_bytes()
        if golden.is_csv:
            names, line_feed, rows = data.partition(b"\n")
            first, *others = names.split(b",")
            changed.write_bytes(b",".join([first, *others[:-1], first]) + line_feed + rows)
        else:
            found = list(FIRST_KEY.finditer(data))[which]
            key, at = found[1], found.start(1)
            changed.write_bytes(data[:at] + key + b"0, " + data[at:])
        with pytest.raises(ValueError, match=r"twice|several columns") as caught:
            golden.read(folder)
        assert str(changed) in str(caught.value) or str(changed.parent) in str(caught.value)
