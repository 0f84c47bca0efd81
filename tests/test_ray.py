"""Ray Data: every row routed exactly once, as in one process, whatever happens to an actor."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from tables import make_table, unit_rows
from tiny_encoder import prompts_of, write_bert
from typer.testing import CliRunner

from benchrouter.router import Router

ray = pytest.importorskip("ray", reason="ray is not installed (pip install '.[ray]')")
pytest.importorskip("ray.data", reason="Ray Data is not installed (pip install '.[ray]')")

from benchrouter.cli import app  # noqa: E402
from benchrouter.cli.route_ray import EMBEDDINGS, read_tables  # noqa: E402
from benchrouter.integrations.ray import RESULTS, RouteBatch, route_dataset  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
DIM, N = 16, 2000
needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")),
    reason="torch or transformers is not installed (pip install '.[cpu]')",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folder of a router fitted on given embeddings."""
    folder = tmp_path_factory.mktemp("given") / "router"
    rng = np.random.default_rng(1)
    scores = (rng.random((300, 4)) < 0.5).astype(np.float32)
    table = make_table(scores, np.arange(300) % 3)
    Router.fit(table, embeddings=unit_rows(300, DIM), draws=1).save(folder)
    return folder


@pytest.fixture(scope="module")
def encoding(tmp_path_factory):
    """Folder of a router with a tiny encoder, and the encoder's."""
    root = tmp_path_factory.mktemp("encoding")
    encoder = write_bert(root / "encoder")
    rng = np.random.default_rng(2)
    scores = (rng.random((120, 3)) < 0.5).astype(np.float32)
    prompts = prompts_of(rng.integers(3, 30, 120).tolist())
    table = make_table(scores, np.arange(120) % 2, prompts=prompts)
    Router.fit(table, encoder=str(encoder), draws=1).save(root / "router")
    return root / "router", encoder


@pytest.fixture(scope="module")
def cluster():
    """A cluster on this machine, whose workers find this file."""
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def lists(rows):
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def columns_of(decisions):
    return {
        "model": decisions.names(),
        "score": decisions.score.tolist(),
        "margin": decisions.margin.tolist(),
        "distance": decisions.distance.tolist(),
        "fallback": decisions.fallback.tolist(),
    }


# ----------------------------------------------------------------------------------- without Ray


@pytest.mark.parametrize(
    "column",
    [
        lambda rows: lists(rows),
        lambda rows: lists(rows).cast(pa.list_(pa.float32())),
        lambda rows: lists(rows).cast(pa.large_list(pa.float32())),
        lambda rows: pa.FixedShapeTensorArray.from_numpy_ndarray(rows),
    ],
    ids=["fixed-size lists", "lists", "large lists", "tensors"],
)
def test_batch_is_routed_as_by_the_router(given, column):
    rows = unit_rows(50, DIM, seed=3)
    other = pa.array([None, *range(49)], pa.int32())
    batch = pa.table({"embedding": column(rows), "other": other})
    found = RouteBatch(given, embeddings_column="embedding", rule="raw", prefix="r_")(batch)
    assert found.column_names == ["embedding", "other", *(f"r_{name}" for name in RESULTS)]
    assert found.schema.field("other").type == pa.int32()
    assert found["other"].to_pylist() == other.to_pylist()
    expected = columns_of(Router.load(given).route(embeddings=rows, rule="raw"))
    assert {name: found[f"r_{name}"].to_pylist() for name in RESULTS} == expected
    kinds = [pa.string(), pa.float32(), pa.float32(), pa.float32(), pa.bool_()]
    assert [found.schema.field(f"r_{name}").type for name in RESULTS] == kinds


def test_slice_and_half_precision(given):
    rows = unit_rows(50, DIM, seed=3).astype(np.float16)
    batch = pa.table({"embedding": lists(rows), "id": range(50)}).slice(10, 20)
    route = RouteBatch(given, embeddings_column="embedding", drop_columns=["embedding"])
    found = route(batch)
    assert found.column_names == ["id", *RESULTS]
    expected = Router.load(given).route(embeddings=rows[10:30])
    assert found["model"].to_pylist() == expected.names()


@needs_torch
def test_prompts_are_encoded(encoding):
    router, _ = encoding
    prompts = prompts_of([5, 9, 20])
    batch = pa.table({"q": pa.array(prompts).dictionary_encode()})
    found = RouteBatch(router, prompt_column="q")(batch)
    assert found["model"].to_pylist() == Router.load(router).route(prompts).names()


@pytest.mark.parametrize(
    "batch, error, words",
    [
        ({"x": np.zeros(2)}, TypeError, "found a batch of type dict, expected a pyarrow.Table"),
        (pa.table({"x": [1]}), ValueError, "found columns ['x'], expected one 'embedding'"),
        (pa.table({"embedding": [1.0]}), ValueError, "'embedding' is double, expected lists"),
        (
            pa.table({"embedding": [[1.0], [1.0, 0.0]], "id": ["a", "b"]}),
            ValueError,
            "row 0 of a batch of 2 (the row: {'id': 'a'}): found 1 numbers, expected 2",
        ),
        (
            pa.table({"embedding": [[1.0], None], "id": ["a", "b"]}),
            ValueError,
            "row 1 of a batch of 2 (the row: {'id': 'b'}): found null",
        ),
        (pa.table({"embedding": [[1.0]]}), TypeError, "must be float16 or float32, got float64"),
        (
            pa.table({"embedding": lists(np.eye(4, dtype=np.float32))}),
            ValueError,
            "embeddings have dim 4, the router's have dim 16",
        ),
        (pa.table({"embedding": [[]], "score": [1]}), ValueError, "found a column 'score' already"),
    ],
    ids=["numpy", "no column", "no lists", "ragged", "null", "double", "dim", "taken"],
)
def test_bad_batches(given, batch, error, words):
    with pytest.raises(error) as raised:
        RouteBatch(given, embeddings_column="embedding")(batch)
    assert words in str(raised.value)


@needs_torch
@pytest.mark.parametrize(
    "prompts, words",
    [
        (["a", None], "row 1 of a batch of 2 (the row: {'id': 1}): found null, expected text"),
        ([" \n", "b"], "row 0 of a batch of 2 (the row: {'id': 0}): found an empty prompt"),
        ([1, 2], "column 'prompt' is int64, expected string"),
    ],
)
def test_bad_prompts(encoding, prompts, words):
    route = RouteBatch(encoding[0])
    with pytest.raises(ValueError) as raised:
        route(pa.table({"prompt": prompts, "id": [0, 1]}))
    assert words in str(raised.value)


def test_router_without_an_encoder_is_refused_at_once(given):
    with pytest.raises(ValueError, match="without an encoder"):
        RouteBatch(given)


# -------------------------------------------------------------------------------------- with Ray


class Mortal(RouteBatch):
    """Notes its process, and kills the first one that comes to its third batch."""

    def __init__(self, *, notes, **options):
        super().__init__(**options)
        self.notes = Path(notes)
        self.n_batches = 0

    def __call__(self, batch):
        (self.notes / str(os.getpid())).touch()
        self.n_batches += 1
        if self.n_batches == 3:
            try:
                os.close(os.open(self.notes / "killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def routed_by_mortals(table, notes, **options):
    """Route a table in blocks with two actors, one of which is killed in mid-job."""
    dataset = ray.data.from_arrow([table.slice(i, 100) for i in range(0, len(table), 100)])
    found = dataset.map_batches(
        Mortal,
        fn_constructor_kwargs={"notes": str(notes), **options},
        batch_format="pyarrow",
        batch_size=50,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    parts = [ray.get(ref) for ref in found.to_arrow_refs()]
    noted = {path.name for path in notes.iterdir()}
    assert "killed" in noted
    assert len(noted) >= 4  # two actors, and one in place of the killed one
    return pa.concat_tables(parts).sort_by("id")


def test_killed_actor_with_given_embeddings(given, cluster, tmp_path):
    rows = unit_rows(N, DIM, seed=4)
    table = pa.table({"id": range(N), "embedding": lists(rows)})
    found = routed_by_mortals(
        table, tmp_path, directory=str(given), embeddings_column="embedding", rule="s3"
    )
    assert found["id"].to_pylist() == list(range(N))
    expected = columns_of(Router.load(given).route(embeddings=rows, rule="s3"))
    assert {name: found[name].to_pylist() for name in RESULTS} == expected


@pytest.mark.slow
@needs_torch
def test_killed_actor_with_an_encoder(encoding, cluster, tmp_path):
    router, _ = encoding
    prompts = prompts_of(np.random.default_rng(5).integers(1, 40, 800).tolist())
    table = pa.table({"id": range(len(prompts)), "prompt": prompts})
    found = routed_by_mortals(table, tmp_path, directory=str(router))
    assert found["id"].to_pylist() == list(range(len(prompts)))
    assert found["prompt"].to_pylist() == prompts
    expected = Router.load(router).route(prompts)
    assert found["model"].to_pylist() == expected.names()
    np.testing.assert_allclose(found["distance"].to_numpy(), expected.distance, atol=1e-3)


class Threads(RouteBatch):
    """Says how many threads and CPUs it has, and where its encoder runs."""

    def __call__(self, batch):
        import torch

        router = self.router
        said = [router._state.rules.index.threads, torch.get_num_threads(), router.encoder.device]
        return pa.table({"said": [json.dumps(said)]})


@pytest.mark.slow
@needs_torch
def test_threads_are_the_cpus_of_the_actor(encoding, cluster):
    found = ray.data.from_items([{"prompt": "w1"}]).map_batches(
        Threads,
        fn_constructor_kwargs={"directory": str(encoding[0])},
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=2,
    )
    assert [json.loads(row["said"]) for row in found.take_all()] == [[2, 2, "cpu"]]


def test_route_dataset(given, cluster):
    rows = unit_rows(300, DIM, seed=6)
    dataset = ray.data.from_arrow(pa.table({"id": range(300), "embedding": lists(rows)}))
    routed = route_dataset(
        dataset, given, embeddings_column="embedding", concurrency=1, batch_size=64
    )
    found = sorted(routed.take_all(), key=lambda row: row["id"])
    expected = Router.load(given).route(embeddings=rows)
    assert [row["model"] for row in found] == expected.names()


# ------------------------------------------------------------------------------- the command line


def tables_of(path, tmp_path, **options):
    """What the reader makes of a file, and what it says of it."""
    given = dict(embeddings=None, prompt_column="prompt", format=None, on_error="raise")
    report = tmp_path / "report.json"
    paths = pa.table({"path": [str(path)]})
    tables = list(read_tables(paths, report=str(report), **{**given, **options}))
    return tables, json.loads(report.read_text())


def test_reader_keeps_the_types_of_the_first_batch(tmp_path):
    lines = ['{"prompt": "a", "n": 1, "x": 1.5}', '{"prompt": "b"}', '{"prompt": "c", "x": 2}']
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    tables, said = tables_of(tmp_path / "p.jsonl", tmp_path, batch=1)
    expected = pa.schema([("n", pa.int64()), ("x", pa.float64()), ("prompt", pa.string())])
    assert [table.schema for table in tables] == [expected] * 3
    found = pa.concat_tables(tables).to_pydict()
    assert found == {"n": [1, None, None], "x": [1.5, None, 2.0], "prompt": ["a", "b", "c"]}
    assert said == {"prompts": 3, "skipped": 0, "first_skipped": []}


def test_reader_pairs_embeddings_with_kept_records(tmp_path):
    rows = unit_rows(3, 4)
    np.save(tmp_path / "p.npy", rows.astype(np.float16))
    (tmp_path / "p.txt").write_text("a\n\nb\n")
    options = dict(embeddings=str(tmp_path / "p.npy"), on_error="skip", batch=8)
    (table,), said = tables_of(tmp_path / "p.txt", tmp_path, **options)
    assert table["prompt"].to_pylist() == ["a", "b"]
    found = table[EMBEDDINGS].combine_chunks().flatten().to_numpy().reshape(2, 4)
    np.testing.assert_array_equal(found, rows[[0, 2]].astype(np.float16))
    assert said["skipped"] == 1
    assert "p.txt, line 2" in said["first_skipped"][0]


@pytest.mark.parametrize(
    "lines, words",
    [
        (['{"prompt": "a"}', '{"prompt": "b", "n": 1}'], "input records 1 to 1: found a field 'n'"),
        (['{"prompt": "a", "n": 1}', '{"prompt": "b", "n": "x"}'], "'n' does not keep one type"),
        (['{"prompt": "a"}', '{"prompt": ""}'], "p.jsonl, line 2: found an empty prompt"),
    ],
)
def test_reader_refuses(tmp_path, lines, words):
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError) as raised:
        tables_of(tmp_path / "p.jsonl", tmp_path, batch=1)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "code, words, options",
    [
        (2, "--ray reads and writes files, found -", ["-o", "-", "--ray", "local"]),
        (2, "expected cpu or cuda", ["-o", "out", "--ray", "local", "--device", "cuda:1"]),
        (2, "found no --ray ADDRESS", ["-o", "out", "--ray-actors", "2"]),
        (1, "expected no or an empty directory", ["-o", "full", "--ray", "local"]),
        (1, "there is no directory", ["-o", "absent/out", "--ray", "local"]),
        (1, "no.jsonl: No such file", ["-o", "out", "--ray", "local"]),
    ],
)
def test_wrong_usage_is_told_before_a_cluster_is_there(
    given, tmp_path, monkeypatch, code, words, options
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "init", lambda *a, **k: pytest.fail("a cluster was started"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    np.save(tmp_path / "p.npy", unit_rows(2, DIM))
    arguments = ["route", str(given), "no.jsonl", "--embeddings", "p.npy", *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "p.npy"]


def test_without_ray_the_command_says_what_to_install(given, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(
        app, ["route", str(given), "p.jsonl", "-o", str(tmp_path / "out"), "--ray", "local"]
    )
    assert result.exit_code == 3
    assert "pip install 'benchrouter[ray]'" in result.stderr


def route_on_ray(*arguments):
    command = [sys.executable, "-m", "benchrouter", "route", *map(str, arguments)]
    return subprocess.run(
        [*command, "--ray", "local"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_command(given, tmp_path):
    rows = unit_rows(N, DIM, seed=7)
    lines = [json.dumps({"id": i, "prompt": f"prompt {i}"}) for i in range(N)]
    lines[5] = '{"id": 5, "prompt": null}'
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    np.save(tmp_path / "p.npy", rows)
    run = route_on_ray(
        *(given, tmp_path / "p.jsonl", "--embeddings", tmp_path / "p.npy"),
        *("-o", tmp_path / "out", "--batch-size", 100, "--ray-actors", 2, "--json"),
    )
    assert run.returncode == 4, run.stderr  # done but for a bad record, which is reported
    document = json.loads(run.stdout)
    assert document["prompts"] == N - 1
    assert document["skipped"] == 1
    assert "p.jsonl, line 6: found null" in document["first_skipped"][0]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names[0] == "part-000000.parquet"
    found = pa.dataset.dataset(tmp_path / "out").to_table()
    kept = [i for i in range(N) if i != 5]
    assert found.column_names == ["id", "prompt", *RESULTS]
    assert found["id"].to_pylist() == kept
    expected = columns_of(Router.load(given).route(embeddings=rows[kept]))
    assert {name: found[name].to_pylist() for name in RESULTS} == expected
    assert sum(document["models"].values()) == N - 1
    assert document["fallbacks"] == sum(expected["fallback"])


@pytest.mark.slow
def test_command_names_a_bad_record(given, tmp_path):
    lines = ['{"prompt": "a"}\n'] * 200
    lines[150] = '{"prompt": ""}\n'
    (tmp_path / "p.jsonl").write_text("".join(lines))
    np.save(tmp_path / "p.npy", unit_rows(200, DIM))
    run = route_on_ray(
        *(given, tmp_path / "p.jsonl", "--embeddings", tmp_path / "p.npy"),
        *("-o", tmp_path / "out", "--batch-size", 100, "--on-error", "raise"),
    )
    assert run.returncode == 1
    last = run.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith("p.jsonl, line 151: found an empty prompt, expected text")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.slow
@needs_torch
def test_command_encodes(encoding, tmp_path):
    router, encoder = encoding
    prompts = prompts_of(np.random.default_rng(8).integers(1, 40, 300).tolist())
    ids = pa.array([None, *range(299)], pa.int16())
    pa.parquet.write_table(pa.table({"prompt": prompts, "id": ids}), tmp_path / "p.parquet")
    run = route_on_ray(
        *(router, tmp_path / "p.parquet", "-o", tmp_path / "out", "--encoder", encoder),
        *("--no-prompt", "--prefix", "r_", "--threads", 1, "--batch-size", 50),
    )
    assert run.returncode == 0, run.stderr
    assert "routed 300 prompts" in run.stderr
    found = pa.dataset.dataset(tmp_path / "out").to_table()
    assert found.column_names == ["id", *(f"r_{name}" for name in RESULTS)]
    assert found["id"].combine_chunks() == ids
    expected = Router.load(router).route(prompts)
    assert found["r_model"].to_pylist() == expected.names()
