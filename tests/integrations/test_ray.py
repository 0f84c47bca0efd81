"""Ray Data: every row routed exactly once, as in one process, whatever happens to an actor."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from tables import make_table, unit_rows
from tiny_encoder import prompts_of, write_bert
from typer.testing import CliRunner

from benchrouter import Settings, _core
from benchrouter.decisions.written.manifest import mark_of, read_manifest
from benchrouter.embeddings import Encoder
from benchrouter.prompts.batches import read_prompts
from benchrouter.router import Router

ray = pytest.importorskip("ray", reason="ray is not installed (pip install '.[ray]')")
pytest.importorskip("ray.data", reason="Ray Data is not installed (pip install '.[ray]')")

from benchrouter.cli import app, route_ray  # noqa: E402
from benchrouter.cli.output import EncoderUnavailable  # noqa: E402
from benchrouter.cli.route_ray import EMBEDDING, ROW, paired, read_tables  # noqa: E402
from benchrouter.integrations.ray import RESULTS, RouteBatch, route_dataset  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PLACES = (ROOT, ROOT / "tests" / "helpers", Path(__file__).parent)  # of what actors import
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
    Router.fit(table, embeddings=unit_rows(300, DIM), settings=Settings(draws=1)).save(folder)
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
    Router.fit(table, encoder=str(encoder), settings=Settings(draws=1)).save(root / "router")
    return root / "router", encoder


@pytest.fixture(scope="module")
def cluster():
    """A cluster on this machine, whose workers find this file."""
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(map(str, PLACES))}},
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


def test_only_models_that_are_allowed(given):
    rows = unit_rows(50, DIM, seed=3)
    batch = pa.table({"embedding": lists(rows)})
    router = Router.load(given)
    models = list(router.models[:2])
    for rule in ("auto", "mean"):
        found = RouteBatch(given, embeddings_column="embedding", rule=rule, models=models)(batch)
        decisions = router.route(embeddings=rows, rule=rule, models=models)
        expected = columns_of(decisions)
        assert {name: found[name].to_pylist() for name in RESULTS} == expected
        assert set(expected["model"]) <= set(models)
        assert ("chance" in found.column_names) == (rule == "auto")
        if rule == "auto":
            assert found["chance"].to_pylist() == decisions.chance.tolist()
    assert set(expected["model"]) == set(models)
    with pytest.raises(ValueError, match="models: found 'gone', expected some of"):
        RouteBatch(given, embeddings_column="embedding", models=["gone"])


def test_slice_and_half_precision(given):
    rows = unit_rows(50, DIM, seed=3).astype(np.float16)
    batch = pa.table({"embedding": lists(rows), "id": range(50)}).slice(10, 20)
    route = RouteBatch(given, embeddings_column="embedding", drop_columns=["embedding"])
    found = route(batch)
    assert found.column_names == ["id", *RESULTS, "chance"]
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


@needs_torch
@pytest.mark.parametrize("built", [True, False])
def test_without_kernels_only_the_encoder_runs_on_a_gpu(encoding, monkeypatch, built):
    routers, encoders = [], []
    load_router, load_encoder = Router.load, Encoder.load

    def router_of(*arguments, device, **options):
        routers.append(device)
        return load_router(*arguments, device="cpu", **options)

    def encoder_of(*arguments, device, **options):
        encoders.append(device)
        return load_encoder(*arguments, device="cpu", **options)

    monkeypatch.setattr(Router, "load", router_of)
    monkeypatch.setattr(Encoder, "load", encoder_of)
    monkeypatch.setattr(_core, "has_cuda", built)
    prompts = prompts_of([5, 9, 20])
    found = RouteBatch(encoding[0], device="cuda:0")(pa.table({"prompt": prompts}))
    # a router that was given no encoder loads its own, here on the CPU that stands in for a GPU
    assert (routers, encoders) == (["cuda:0"], ["cpu"]) if built else (["cpu"], ["cuda:0"])
    assert found["model"].to_pylist() == load_router(encoding[0]).route(prompts).names()


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
        said = [router.decider.index.threads, torch.get_num_threads(), router.encoder.device]
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


def reading(**options):
    given = dict(prompt_column="prompt", format=None, on_error="skip", first_row=0, part_size=None)
    return {**given, "batch": 8, **options}


def tables_of(path, embeddings=None, fingerprint=None, **options):
    """What the reader of a cluster makes of a file."""
    return list(
        read_tables(
            pa.table({"path": [str(path)]}),
            reading=reading(**options),
            embeddings=embeddings,
            fingerprint=fingerprint or mark_of(path)["fingerprint"],
        )
    )


def test_reader_pairs_embeddings_with_kept_records(tmp_path):
    rows = unit_rows(5, 4).astype(np.float16)
    np.save(tmp_path / "p.npy", rows)
    (tmp_path / "p.txt").write_text("a\n\nb\nc\nd\n")
    for first_row, kept in ((0, [0, 2, 3, 4]), (3, [3, 4])):
        tables = tables_of(
            tmp_path / "p.txt", str(tmp_path / "p.npy"), first_row=first_row, batch=2
        )
        table = pa.concat_tables(tables)
        assert table[ROW].to_pylist() == kept
        found = table[EMBEDDING].combine_chunks().flatten().to_numpy().reshape(-1, 4)
        np.testing.assert_array_equal(found, rows[kept])


def test_reader_refuses_another_file_under_the_same_path(tmp_path):
    (tmp_path / "p.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"p\.txt: found another file there than where"):
        tables_of(tmp_path / "p.txt", fingerprint="0" * 64)


def decided(rows, model="b"):
    n = len(rows)
    return pa.table(
        {
            ROW: pa.array(rows, pa.int64()),
            "model": pa.array([model] * n, pa.string()),
            **{name: pa.array(rows, pa.float32()) for name in RESULTS[1:4]},
            "fallback": pa.array([False] * n, pa.bool_()),
        }
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_decisions_are_paired_however_they_are_cut(tmp_path, size):
    rows = [0, 2, 3, 6, 7, 8, 9]
    (tmp_path / "p.txt").write_text("".join("p\n" if i in rows else "\n" for i in range(10)))
    tables = [decided(rows[i : i + size]) for i in range(0, len(rows), size)]
    tables.insert(1, decided([]))
    found = list(paired(read_prompts(tmp_path / "p.txt", **reading(batch=2)), iter(tables), "ab"))
    assert [batch.first_row for batch, _ in found] == [0, 2, 4, 6, 8]
    assert found[2][1] is None  # a batch of bad records
    for batch, decisions in found[:2] + found[3:]:
        assert decisions.score.tolist() == batch.rows.tolist()
        assert decisions.names() == ["b"] * len(batch.rows)
        assert (decisions.model.dtype, decisions.score.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([decided([0, 1])], "found no decision for input record 2"),
        ([decided([0, 1]), decided([1, 2])], "a decision for input record 1, expected 2"),
        ([decided([0, 2, 3])], "a decision for input record 2, expected 1"),
        ([decided([0, 1, 2, 3, 4])], "found 1 decisions behind the last prompt"),
        ([decided([0, 1, 2, 3]), decided([3])], "found 1 decisions behind the last prompt"),
        ([decided([0, 1, 2, 3], "c")], "found model 'c', which the router here has not"),
    ],
    ids=["lost", "doubled", "passed over", "one more", "a block more", "model"],
)
def test_decisions_that_are_not_one_for_each_prompt_are_refused(tmp_path, tables, words):
    (tmp_path / "p.txt").write_text("p\n" * 4)
    with pytest.raises(ValueError, match=words):
        list(paired(read_prompts(tmp_path / "p.txt", batch=2), iter(tables), ("a", "b")))


@pytest.mark.parametrize("built", [True, False])
def test_a_cluster_is_asked_for_gpus_and_kernels(monkeypatch, capsys, built):
    there = {"CPU": 4.0, "GPU": 2.0}
    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    context = SimpleNamespace(execution_options=SimpleNamespace())
    monkeypatch.setattr(ray.data.DataContext, "get_current", lambda: context)
    monkeypatch.setattr(_core, "has_cuda", built)
    with route_ray._cluster("local", "cuda", 1, 1):
        said = capsys.readouterr().err
    assert said.startswith("Ray: 4 CPUs, 2 GPUs\n")
    assert ("note: only the encoder runs on the actors' GPUs" in said) != built
    del there["GPU"]
    with (
        pytest.raises(EncoderUnavailable, match="Ray finds no GPU on this machine"),
        route_ray._cluster("local", "cuda", 1, 1),
    ):
        pass
    with route_ray._cluster("auto", "cuda", 1, 1):  # it may grow
        assert "waits until it has one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "words", "options"),
    [
        (2, "--ray reads and writes files, found -", ["-o", "-", "--ray", "local"]),
        (2, "expected cpu or cuda", ["-o", "out", "--ray", "local", "--device", "cuda:1"]),
        (2, "found no --ray ADDRESS", ["-o", "out", "--ray-actors", "2"]),
        (2, "does not go with --ray", ["-o", "out", "--ray", "local", "--profile"]),
        (2, "--part-size and --output-format", ["-o", "out.csv", "--ray", "local", "--resume"]),
        (1, "expected a new or empty directory", ["-o", "full", "--ray", "local"]),
        (1, "absent/out: No such file", ["-o", "absent/out", "--ray", "local"]),
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
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n' * 2)
    prompts = "no.jsonl" if "no.jsonl" in words else "p.jsonl"
    arguments = ["route", str(given), prompts, "--embeddings", "p.npy", *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "p.jsonl", "p.npy"]


def test_prompts_that_cannot_be_read_twice_are_refused(given, tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    arguments = ["route", str(given), str(tmp_path / "p.jsonl"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--ray", "local"])
    assert result.exit_code == 1
    assert "is no regular file, expected one that --ray can read twice" in result.stderr


def test_without_ray_the_command_says_what_to_install(given, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(
        app, ["route", str(given), "p.jsonl", "-o", str(tmp_path / "out"), "--ray", "local"]
    )
    assert result.exit_code == 3
    assert "pip install 'benchrouter[ray]'" in result.stderr


def command_of(*arguments):
    return [sys.executable, "-m", "benchrouter", "route", *map(str, arguments)]


def route_on_ray(*arguments, address="local"):
    command = command_of(*arguments, "--ray", address)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def job(given, tmp_path_factory):
    """Arguments of a job with bad records, but for the output, and what a single process writes."""
    folder, n = tmp_path_factory.mktemp("job"), 12_000
    lines = [
        json.dumps({"id": i, "prompt": f"prompt {i}", "tags": ["a"] * (i % 3)}) for i in range(n)
    ]
    for i in (5, 4_000, 4_001):
        lines[i] = '{"id": 5, "prompt": null}'
    (folder / "p.jsonl").write_text("\n".join(lines) + "\n")
    np.save(folder / "p.npy", unit_rows(n, DIM, seed=7))
    arguments = [given, folder / "p.jsonl", "--embeddings", folder / "p.npy"]
    arguments += ["--part-size", 500, "--batch-size", 20, "--resume"]
    arguments += ["--models", "model 0,model 2,model 3", "--rule", "mean"]
    whole = folder / "whole"
    done = CliRunner().invoke(app, ["route", *map(str, arguments), "-o", str(whole)])
    assert done.exit_code == 4, done.output
    return arguments, content(whole)


def n_parts(target):
    return len(list(target.glob("part-*"))) if target.exists() else 0


def begin(arguments, target, n_more):
    """Start a job on a cluster; return the process when there are so many more parts."""
    enough = n_parts(target) + n_more
    with open(said_by(target), "w") as errors:
        command = command_of(*arguments, "-o", target, "--json")
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
    ends = time.monotonic() + 120
    while n_parts(target) < enough and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)
    assert process.poll() is None and n_parts(target) >= enough, said_by(target).read_text()
    return process


def ended(process, target):
    """What a job says on stderr that did what it could; its stdout is a JSON document."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 4, said_by(target).read_text()
    assert json.loads(output)["prompts"] == 11_997
    return said_by(target).read_text()


def said_by(target):
    return target.with_suffix(".stderr")


def actors_of(mark):
    """Processes of the actors that a marked command started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title, environment = ((folder / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if b"(RouteBatch)" in title and mark.encode() in environment:
            found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_command_writes_what_a_single_process_writes(job, tmp_path):
    arguments, expected = job
    run = route_on_ray(*arguments, "-o", tmp_path / "out", "--ray-actors", 2, "--json")
    assert run.returncode == 4, run.stderr  # done but for bad records, which are reported
    assert content(tmp_path / "out") == expected
    document = json.loads(run.stdout)
    assert (document["prompts"], document["skipped"], document["parts"]) == (11_997, 3, 24)
    assert sum(document["models"].values()) == 11_997
    assert set(document["models"]) == {"model 0", "model 2", "model 3"}
    assert "p.jsonl, line 6: found null" in document["first_skipped"][0]


@pytest.mark.slow
def test_command_whose_actor_is_killed(job, tmp_path, monkeypatch):
    arguments, expected = job
    mark = f"BENCHROUTER_TEST_{uuid4().hex}"
    monkeypatch.setenv(mark, "1")
    options = [*arguments, "--ray", "local", "--ray-actors", 2]
    process = begin(options, tmp_path / "out", 2)
    actors = actors_of(mark)
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    ended(process, tmp_path / "out")
    assert content(tmp_path / "out") == expected


@pytest.mark.slow
def test_command_that_is_killed_goes_on(job, tmp_path):
    arguments, expected = job
    target = tmp_path / "out"
    for _ in range(2):
        process = begin([*arguments, "--ray", "local"], target, 3)
        process.kill()
        process.communicate()
        assert not read_manifest(target).complete
    n = read_manifest(target).next_row
    assert n >= 5 * 500  # the sixth file may have been there and not listed yet
    done = begin([*arguments, "--ray", "local"], target, 0)
    assert f"going on behind {n:,} records" in ended(done, target)
    assert content(target) == expected


@pytest.mark.slow
@pytest.mark.parametrize("address", ["auto", "HOST:PORT"])
def test_cluster_that_loses_a_machine(job, tmp_path, monkeypatch, address):
    from ray.cluster_utils import Cluster

    arguments, expected = job
    mark = f"BENCHROUTER_TEST_{uuid4().hex}"
    monkeypatch.setenv(mark, "1")
    machines = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    try:
        lost = machines.add_node(num_cpus=2)
        machines.wait_for_nodes()
        if address == "auto":
            monkeypatch.setenv("RAY_ADDRESS", machines.address)
        else:
            address = machines.address
        process = begin([*arguments, "--ray", address, "--ray-actors", 4], tmp_path / "out", 2)
        actors = actors_of(mark)
        assert len(actors) == 4  # two on each machine
        machines.remove_node(lost, allow_graceful=False)
        assert process.poll() is None
        said = ended(process, tmp_path / "out")
    finally:
        machines.shutdown()
    assert "Ray: 4 CPUs" in said
    assert content(tmp_path / "out") == expected


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
def test_command_tells_errors_of_the_cluster_in_one_line(given, tmp_path):
    (tmp_path / "p.txt").write_text("a\n" * 200)
    np.save(tmp_path / "p.npy", unit_rows(199, DIM))
    run = route_on_ray(
        *(given, tmp_path / "p.txt", "--embeddings", tmp_path / "p.npy"),
        *("-o", tmp_path / "out", "--batch-size", 100),
    )
    assert run.returncode == 1
    last = run.stderr.rstrip().splitlines()[-1]
    assert last == f"error: {tmp_path}/p.npy has 199 embeddings, the prompts are 200"
    assert not list(tmp_path.glob("*out*"))


ELSEWHERE = """
import sys
import benchrouter.integrations.ray as integration
from benchrouter.cli import main
route_dataset = integration.route_dataset
there = sys.argv.pop()
integration.route_dataset = lambda dataset, directory, **options: route_dataset(
    dataset, there, **options
)
main()
"""


@pytest.mark.slow
def test_command_whose_machines_see_no_router(given, tmp_path):
    (tmp_path / "p.txt").write_text("a\n" * 20)
    np.save(tmp_path / "p.npy", unit_rows(20, DIM))
    arguments = [given, tmp_path / "p.txt", "--embeddings", tmp_path / "p.npy"]
    arguments += ["-o", tmp_path / "out", "--ray", "local", "--json"]
    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, "route", *map(str, arguments), str(tmp_path / "none")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 1
    assert run.stderr.rstrip().splitlines()[-1] == (
        f"error: an actor could not start: {tmp_path}/none is not a router: it has no router.json"
    )
    assert run.stdout == ""
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.slow
@needs_torch
def test_command_encodes(encoding, tmp_path):
    router, encoder = encoding
    prompts = prompts_of(np.random.default_rng(8).integers(1, 40, 300).tolist())
    ids = pa.array([None, *range(299)], pa.int16())
    pa.parquet.write_table(pa.table({"prompt": prompts, "id": ids}), tmp_path / "p.parquet")
    run = route_on_ray(
        *(router, tmp_path / "p.parquet", "-o", tmp_path / "out.parquet", "--encoder", encoder),
        *("--no-prompt", "--prefix", "r_", "--threads", 1, "--batch-size", 50),
    )
    assert run.returncode == 0, run.stderr
    assert "routed 300 prompts" in run.stderr
    found = pa.parquet.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["id", *(f"r_{name}" for name in (*RESULTS, "chance"))]
    assert found["id"].combine_chunks() == ids
    expected = Router.load(router).route(prompts)
    assert found["r_model"].to_pylist() == expected.names()


def test_an_actor_cannot_have_more_cpus_than_there_are(capsys):
    route_ray._check_cpus("local", 2, 2)
    with pytest.raises(ValueError, match="--threads 64: .* Ray finds 2 on this machine"):
        route_ray._check_cpus("local", 2, 64)
    assert capsys.readouterr().err == ""
    route_ray._check_cpus("auto", 2, 64)
    assert "takes 64 CPUs, and waits" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ValueError", "benchrouter.files.errors.BadInput"])
def test_what_an_actor_raised_is_told(kind):
    class Failed(Exception):
        cause = "UDF failed to process a data block.\nFailed to apply UDF"

    text = (
        f"ray::MapWorker.submit() (pid=1)\n  File x\n{kind}: embeddings, row 5: found NaN\n\n"
        "The above exception was the direct cause of the following exception:\n\nmore"
    )
    assert route_ray._reason_of(Failed(text)) == "embeddings, row 5: found NaN"
    assert route_ray._reason_of(Failed("killed")) == "UDF failed to process a data block."
