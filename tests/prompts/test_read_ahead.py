"""Stages side by side: the same items in the same order, few at a time, and no thread left."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
import traceback
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import make_table, unit_rows
from typer.testing import CliRunner

from benchrouter.cli import app
from benchrouter.prompts.read_ahead import made_ahead, treated_beside
from benchrouter.prompts.timing import measuring, staged
from benchrouter.router import Router

SOON = 30.0  # seconds within which what must happen happens


def ours():
    return [t.name for t in threading.enumerate() if t.name.startswith("benchrouter-ahead")]


@pytest.fixture(autouse=True)
def no_thread_left():
    assert ours() == []
    yield
    assert ours() == []


def same(items, depth=1):
    return treated_beside(lambda item: item, items, name="work", depth=depth)


both = pytest.mark.parametrize(
    "beside", [lambda items: made_ahead(items, name="make"), same], ids=["made", "treated"]
)


@both
@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_items_are_the_same_in_the_same_order(beside, n):
    assert list(beside(iter(range(n)))) == list(range(n))
    assert list(beside([None] * n)) == [None] * n


def test_each_works_in_its_thread():
    caller = threading.get_ident()
    makers = (threading.get_ident() for _ in range(9))
    assert len({*made_ahead(makers, name="make")} - {caller}) == 1
    pairs = treated_beside(
        lambda maker: (maker, threading.get_ident()),
        (threading.get_ident() for _ in range(9)),
        name="work",
    )
    makers, workers = zip(*pairs, strict=True)
    assert {*makers} == {caller} and len({*workers} - {caller}) == 1


def test_the_next_item_is_made_while_the_caller_has_the_last():
    made = [threading.Event() for _ in range(5)]

    def items():
        for i in range(5):
            made[i].set()
            yield i

    for i in made_ahead(items(), name="make", depth=1):
        assert i == 4 or made[i + 1].wait(SOON)


def test_the_next_item_is_made_while_the_last_is_treated():
    made = [threading.Event() for _ in range(5)]

    def items():
        for i in range(5):
            made[i].set()
            yield i

    def work(i):
        return i == 4 or made[i + 1].wait(SOON)

    assert list(treated_beside(work, items(), name="work")) == [True] * 5


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_more_is_made_ahead_than_told(depth):
    n_made = 0

    def items():
        nonlocal n_made
        for _ in range(20):
            n_made += 1
            yield n_made

    for i in made_ahead(items(), name="make", depth=depth):
        expected = min(20, i + depth)
        until = time.monotonic() + SOON
        while n_made < expected and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.005)  # were it to make more, it would now
        assert n_made == expected


def test_treated_beside_holds_few_items():
    n_made = 0

    def items():
        nonlocal n_made
        for _ in range(20):
            n_made += 1
            yield n_made

    for i in same(items()):
        assert n_made == min(20, i + 1)


@both
def test_an_error_comes_in_its_place_with_its_traceback(beside):
    def fails():
        yield 1
        yield 2
        raise KeyError("the third")

    found = []
    with pytest.raises(KeyError, match="the third") as caught:
        found.extend(iter_into(found, beside(fails())))
    assert found == [1, 2]
    assert "fails" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def iter_into(found, items):
    for item in items:
        found.append(item)
    return []


def test_an_error_of_the_work_comes_in_its_place():
    asked = []

    def items():
        for i in range(9):
            asked.append(i)
            yield i

    found = []
    with pytest.raises(ZeroDivisionError):
        iter_into(found, treated_beside(lambda i: 1 / (i - 2), items(), name="work"))
    assert found == [-0.5, -1.0] and max(asked) <= 4


@both
def test_a_caller_that_stops_leaves_no_thread_and_no_open_generator(beside):
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(threading.get_ident())

    with closing(beside(items())) as some:
        assert next(some) == 0
        assert ours() != []
    assert ours() == [] and len(closed) == 1
    with pytest.raises(RuntimeError, match="the caller's own"), closing(beside(items())) as some:
        for _ in some:
            raise RuntimeError("the caller's own")
    assert ours() == [] and len(closed) == 2
    unused = beside(items())
    del unused
    forgotten = beside(items())
    next(forgotten)
    del forgotten
    gc.collect()
    assert ours() == [] and len(closed) == 3


def test_ctrl_c_while_the_caller_waits():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    asked = threading.Event()
    closed = threading.Event()

    def slow():
        try:
            yield 0
            asked.set()
            time.sleep(0.3)
            yield 1
            time.sleep(SOON)  # never begun
        finally:
            closed.set()

    def interrupt():
        asked.wait(SOON)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            closing(made_ahead(slow(), name="make", depth=1)) as x,
        ):
            assert next(x) == 0
            threading.Thread(target=interrupt).start()
            next(x)
    finally:
        signal.signal(signal.SIGINT, before)
    assert closed.is_set()


def test_the_interpreter_ends_with_one_begun_and_forgotten():
    program = (
        "import itertools\n"
        "from benchrouter.prompts.read_ahead import made_ahead\n"
        "some = made_ahead(itertools.count(), name='make')\n"
        "print(next(some), next(some))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=SOON)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0 1\n", b"")


def test_making_and_waiting_are_timed_apart():
    def slow():
        for i in range(3):
            time.sleep(0.02)
            yield i

    with measuring() as stages:
        for _ in made_ahead(staged(slow(), "make"), name="make"):
            time.sleep(0.04)
    assert list(stages.seconds) == list(stages.waited) == ["make"]
    assert stages.seconds["make"] >= 0.06 and stages.waited["make"] > 0.0
    assert stages.rest(1.0) == pytest.approx(1.0 - stages.waited["make"])
    stages.add("own", 0.25)
    assert stages.rest(1.0) == pytest.approx(0.75 - stages.waited["make"])
    assert stages.rest(0.1) == 0.0


# --- in the command -------------------------------------------------------------------------------

N, DIM = 60, 8


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A router R, 60 prompts p.jsonl, the same with a bad one as q.jsonl, embeddings p.npy."""
    root = tmp_path_factory.mktemp("ahead")
    rng = np.random.default_rng(3)
    table = make_table(rng.integers(0, 2, (200, 3)), np.repeat([0, 1], 100))
    Router.fit(table, embeddings=unit_rows(200, DIM)).save(root / "R")
    np.save(root / "p.npy", unit_rows(N, DIM, seed=1))
    lines = [json.dumps({"prompt": f"prompt {i}"}) + "\n" for i in range(N)]
    (root / "p.jsonl").write_text("".join(lines))
    lines[45] = lines[52] = '{"prompt": ""}\n'
    (root / "q.jsonl").write_text("".join(lines))
    return root


def route(files, prompts, *further, batch=10):
    given = ("--embeddings", files / "p.npy", "--batch-size", batch)
    arguments = ["route", files / "R", files / prompts, *given, *further]
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("stage", ["made_ahead", "treated_beside"])
def test_route_reads_and_writes_beside_routing(files, tmp_path, monkeypatch, stage):
    """Batch n is not routed before n + 1 is read; n is not written before n + 1 is routed."""
    import benchrouter.prompts.batches as prompts
    from benchrouter.decisions.decider import Decider

    n_read, n_routed = [threading.Event() for _ in range(6)], [threading.Event() for _ in range(6)]
    missed = []

    def await_event(events, number):
        if number < len(events) and not events[number].wait(SOON):
            missed.append(number)

    plain = prompts._line_batches

    def reading(*arguments):
        for number, batch in enumerate(plain(*arguments)):
            n_read[number].set()
            yield batch

    expected = Router.load(files / "R").route(embeddings=np.load(files / "p.npy"))
    monkeypatch.setattr(prompts, "_line_batches", reading)
    decide = Decider.decide
    count = iter(range(6))

    def deciding(self, *arguments):
        number = next(count)
        if stage == "made_ahead":
            await_event(n_read, number + 1)
        n_routed[number].set()
        return decide(self, *arguments)

    monkeypatch.setattr(Decider, "decide", deciding)
    from benchrouter.decisions.written.single import SingleOutput

    write = SingleOutput.write
    written = iter(range(6))

    def writing(self, *arguments):
        if stage == "treated_beside":
            await_event(n_routed, next(written) + 1)
        write(self, *arguments)

    monkeypatch.setattr(SingleOutput, "write", writing)
    result = route(files, "p.jsonl", "-o", tmp_path / "o.jsonl")
    assert result.exit_code == 0, result.output
    assert missed == []
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in found] == [f"prompt {i}" for i in range(N)]
    assert [row["model"] for row in found] == expected.names()


def test_a_bad_record_stops_behind_the_parts_before_it(files, tmp_path):
    arguments = ("-o", tmp_path / "out", "--part-size", 10, "--on-error", "raise")
    for _ in range(3):  # whatever the threads do first
        result = route(files, "q.jsonl", *arguments)
        assert result.exit_code == 1 and "q.jsonl, line 46: found an empty prompt" in result.stderr
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert [part["first_row"] for part in manifest["parts"]] == [0, 10, 20, 30]
        for path in (tmp_path / "out").iterdir():
            path.unlink()


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("failing", [0, 2])
def test_nothing_is_treated_after_a_failure(failing, depth):
    treated = []

    def work(item):
        treated.append(item)
        if item == failing:
            raise OSError("full")
        return item

    found = treated_beside(work, range(9), name="write", depth=depth)
    with pytest.raises(OSError, match="full"):
        list(found)
    assert treated == list(range(failing + 1))


@pytest.mark.parametrize("batch_size", [10, 20])
def test_a_part_is_not_listed_without_the_batch_that_failed(files, tmp_path, batch_size):
    """A record that cannot be written, in the batch before the last of a part."""
    records = [{"id": i, "prompt": f"prompt {i}"} for i in range(N)]
    records[25]["model"] = "a name that the decisions have too"
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("".join(json.dumps(record) + "\n" for record in records))
    out = tmp_path / "out"
    words = ["-o", out, "--part-size", 40, "--output-format", "jsonl", "--resume"]
    for _ in range(3):
        result = CliRunner().invoke(
            app,
            list(map(str, ["route", files / "R", prompts, "--embeddings", files / "p.npy",
                           "--batch-size", batch_size, *words])),
        )  # fmt: skip
        assert result.exit_code == 1 and "model" in result.stderr
    manifest = out / "manifest.json"
    assert not manifest.exists() or json.loads(manifest.read_text())["parts"] == []


def test_a_writer_that_fails_is_told_and_leaves_nothing(files, tmp_path, monkeypatch):
    from benchrouter.decisions.written.writers import JsonlWriter

    def full(self, batch, decisions):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JsonlWriter, "_write", full)
    result = route(files, "p.jsonl", "-o", tmp_path / "o.jsonl")
    assert result.exit_code == 1 and "o.jsonl: No space left on device" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_read_in_the_callers_thread(files, tmp_path):
    """Else a thread that waits for more could not be stopped: Ctrl-C ends the command at once."""
    program = [
        sys.executable,
        "-m",
        "benchrouter",
        "route",
        files / "R",
        "-",
        "-o",
        tmp_path / "o.csv",
    ]
    given = ["--embeddings", files / "p.npy", "--batch-size", "10"]
    with subprocess.Popen(
        [*program, *given], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write((files / "p.jsonl").read_bytes()[:300])
        process.stdin.flush()
        until = time.monotonic() + SOON
        while unread(process.stdin) and time.monotonic() < until:
            time.sleep(0.01)  # then it waits for the rest of its batch
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(SOON) == 130
        finally:
            process.kill()
        assert process.stderr.read() == b"error: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_given_embeddings_are_routed_without_torch_and_pandas(files, tmp_path, suffix):
    pq.write_table(pa.table({"prompt": [f"prompt {i}" for i in range(N)]}), tmp_path / "p.parquet")
    code = (
        "import sys\nfrom benchrouter.cli import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\n"
        "print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    )
    given = ("--embeddings", files / "p.npy", "-o", tmp_path / f"o.{suffix}")
    done = subprocess.run(
        [sys.executable, "-c", code, "route", files / "R", tmp_path / "p.parquet", *given],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout == "[]\n"


def unread(pipe):
    """Bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


# --- where an encoder has a device of its own -----------------------------------------------------


class Elsewhere:
    """Looks like an encoder on a GPU; its batches wait until the next one is asked for."""

    device = "cuda:0"

    def __init__(self, rows, asked):
        self.rows, self.asked, self.done = rows, asked, 0
        self.threads = set()

    def encode(self, prompts):
        self.threads.add(threading.get_ident())
        self.done += 1
        if self.done < len(self.asked):
            assert self.asked[self.done].wait(SOON)
        return self.rows[[int(prompt) for prompt in prompts]]


def test_a_stream_is_embedded_ahead_where_the_encoder_has_a_device_of_its_own():
    rng = np.random.default_rng(0)
    table = make_table(rng.integers(0, 2, (200, 3)), np.repeat([0, 1], 100))
    router = Router.fit(table, embeddings=unit_rows(200, DIM))
    rows = unit_rows(N, DIM, seed=1)
    expected = router.route(embeddings=rows)
    asked = [threading.Event() for _ in range(6)]
    encoder = Elsewhere(rows, asked)
    router._embedder._encoder = encoder
    callers = set()

    def batches():
        for i in range(6):
            callers.add(threading.get_ident())
            asked[i].set()
            yield [str(row) for row in range(10 * i, 10 * i + 10)], None

    found = list(router.route_stream(batches()))
    assert np.concatenate([f.model for f in found]).tolist() == expected.model.tolist()
    assert callers == {threading.get_ident()} and not callers & encoder.threads


class EncoderOnDevice(Elsewhere):
    """Tokenises apart; every stage waits until the one before it has begun its next batch."""

    def __init__(self, rows, asked):
        super().__init__(rows, asked)
        self.tokenised = [threading.Event() for _ in asked]

    def tokenise(self, prompts):
        self.threads.add(threading.get_ident())
        self.tokenised[int(prompts[0]) // 10].set()
        return prompts

    def encode_tensor(self, prompts):
        torch = pytest.importorskip("torch", reason="torch is not installed")
        number = int(prompts[0]) // 10
        assert number == 5 or self.tokenised[number + 1].wait(SOON)
        return torch.from_numpy(self.encode(prompts))


class OnDevice:
    """Looks like the rules on a GPU."""

    def __init__(self, cpu):
        self.rules, self.cpu = cpu.rules, cpu
        self.callers = set()

    def decide(self, rows, plan):
        self.callers.add(threading.get_ident())
        return self.cpu.decide(rows.numpy(), plan)


def test_on_a_device_tokens_embeddings_and_decisions_are_made_side_by_side(monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    table = make_table(rng.integers(0, 2, (200, 3)), np.repeat([0, 1], 100))
    router = Router.fit(table, embeddings=unit_rows(200, DIM))
    rows = unit_rows(N, DIM, seed=1)
    expected = router.route(embeddings=rows)
    asked = [threading.Event() for _ in range(6)]
    encoder = EncoderOnDevice(rows, asked)
    there = OnDevice(router.decider.backend)
    router._embedder._encoder, router._embedder.device = encoder, encoder.device
    monkeypatch.setattr(router.decider, "backend", there)

    def batches():
        for i in range(6):
            asked[i].set()
            yield [str(row) for row in range(10 * i, 10 * i + 10)], None

    found = list(router.route_stream(batches()))
    assert np.concatenate([f.model for f in found]).tolist() == expected.model.tolist()
    assert len(encoder.threads) == 2 and there.callers == {threading.get_ident()}
