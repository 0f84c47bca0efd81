"""Tables that live: whatever is added and removed, the router is that of a fresh fit."""

from __future__ import annotations

import dataclasses
import json
import threading

import numpy as np
import pytest
from commands import call, write
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from tables import make_table, unit_rows

from benchrouter import Router, Settings
from benchrouter.tables.changes import with_records

DIM = 6
OPTIONS = dict(k=3, kappa=4, label_shares=(0.0, 0.1), draws=2)
QUERIES = unit_rows(20, DIM, seed=99)
COMPACTED = ("pairs", "expectation", "benchmark_u", "local", "distance_limit", "tau")


def same_router(one, two, leave_out=()):
    """Every field of both fits, to the last bit, and what they answer."""
    for field in dataclasses.fields(one._fit):
        if field.name in ("fingerprint", "approximation", "sha256", *leave_out):  # of a directory
            continue
        found, expected = (getattr(router._fit, field.name) for router in (one, two))
        if field.name in ("sample_ids", "prompts"):
            found, expected = list(found), list(expected)
        if dataclasses.is_dataclass(found):
            found, expected = dataclasses.astuple(found), dataclasses.astuple(expected)
            for a, b in zip(found, expected, strict=True):
                assert_array_equal(a, b, err_msg=field.name)
        else:
            assert_array_equal(found, expected, err_msg=field.name)
    if not leave_out:
        assert one.describe() == two.describe()
        for rule in ("auto", "mean", "raw"):
            assert one.route(embeddings=QUERIES, rule=rule).names() == (
                two.route(embeddings=QUERIES, rule=rule).names()
            )
        assert one.choose(embeddings=QUERIES).to_dict() == two.choose(embeddings=QUERIES).to_dict()


# --- the twin: a benchmark as plain Python, made into a table from nothing at every step ----------


class Twin:
    """Records and models in dictionaries; knows nothing of benchrouter but how a table looks."""

    def __init__(self, seed, continuous):
        self.rng = np.random.default_rng(seed)
        self.continuous = continuous
        self.records, self.models, self.made = [], [], 0
        for _ in range(3):
            self.new_model(self.new_name())
        for name in ("a", "c"):
            self.records += self.new_records(name, 12)

    def new_name(self):
        self.made += 1
        return f"model {self.made}"

    def new_model(self, name):
        self.models.append(name)
        for record in self.records:
            record["scores"][name] = self.score()
            record["costs"][name] = np.float32(self.rng.random())

    def score(self):
        if self.rng.random() < 0.15:
            return np.float32(np.nan)
        value = self.rng.random()
        return np.float32(value if self.continuous else value > 0.5)

    def new_records(self, dataset, n):
        rows = unit_rows(n, DIM, seed=int(self.rng.integers(2**31)))
        found = []
        for row in rows:
            self.made += 1
            found.append(
                {
                    "key": (dataset, f"sample {self.made}"),
                    "row": row,
                    "scores": {name: self.score() for name in self.models},
                    "costs": {name: np.float32(self.rng.random()) for name in self.models},
                }
            )
        return found

    def table(self, records=None, models=None):
        records = self.records if records is None else records
        models = self.models if models is None else models
        names = sorted({record["key"][0] for record in records})

        def matrix(what):
            rows = [[r[what].get(m, np.float32(np.nan)) for m in models] for r in records]
            return np.array(rows, np.float32)

        table = make_table(
            matrix("scores"),
            [names.index(record["key"][0]) for record in records],
            datasets=tuple(names),
            models=tuple(models),
            sample_ids=[record["key"][1] for record in records],
            prompts=[f"prompt of {record['key'][1]}" for record in records],
            cost_usd=matrix("costs"),
        )
        return table, np.array([record["row"] for record in records])

    def fitted(self):
        table, rows = self.table()
        return Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS))


def add_records(twin, router, rng, compact=True):
    dataset = ["a", "b", "c"][rng.integers(3)]
    records = twin.new_records(dataset, int(rng.integers(1, 7)))
    n_models = int(rng.integers(1, len(twin.models) + 1))
    models = [twin.models[i] for i in rng.permutation(len(twin.models))[:n_models]]
    for record in records:
        for what in ("scores", "costs"):
            record[what] = {name: record[what][name] for name in models}
    table, rows = twin.table(records, models)
    twin.records += records
    return lambda: router.add_records(table, rows, compact=compact)


def add_model(twin, router, rng):
    name = twin.new_name()
    twin.new_model(name)
    ran = [r for r in twin.records if rng.random() < 0.8] or twin.records[:1]
    for record in twin.records:
        if not any(record is r for r in ran):
            del record["scores"][name], record["costs"][name]
    shuffled = [ran[i] for i in rng.permutation(len(ran))]
    table, _ = twin.table(shuffled, [name])
    return lambda: router.add_model(name, table)


def remove_records(twin, router, rng):
    chosen = [r["key"] for r in twin.records if rng.random() < 0.2]
    twin.records = [r for r in twin.records if r["key"] not in chosen]
    return lambda: router.remove(records=chosen)


def remove_model(twin, router, rng):
    name = twin.models[rng.integers(len(twin.models))]
    twin.models.remove(name)
    for record in twin.records:
        record["scores"].pop(name, None)
        record["costs"].pop(name, None)
    return lambda: router.remove(models=[name])


def remove_dataset(twin, router, rng):
    name = sorted({r["key"][0] for r in twin.records})[0]
    twin.records = [r for r in twin.records if r["key"][0] != name]
    return lambda: router.remove(datasets=[name])


OPERATIONS = {
    "add records": add_records,
    "add records, compact later": lambda *a: add_records(*a, compact=False),
    "add model": add_model,
    "remove records": remove_records,
    "remove model": remove_model,
    "remove dataset": remove_dataset,
}


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    continuous=st.booleans(),
    operations=st.lists(st.sampled_from([*OPERATIONS, "save and load"]), min_size=1, max_size=6),
)
def test_any_sequence_of_updates_equals_a_fresh_fit(tmp_path_factory, seed, continuous, operations):
    twin, rng = Twin(seed, continuous), np.random.default_rng(seed)
    router = twin.fitted()
    for operation in operations:
        if operation == "save and load":
            router.compact()
            folder = tmp_path_factory.mktemp("router") / "R"
            router.save(folder)
            router = Router.load(folder)
            same_router(router, twin.fitted())
            continue
        before = router._fit
        update = OPERATIONS[operation](twin, router, rng)
        try:
            expected = twin.fitted()
        except ValueError:  # nothing left, or a model or dataset without any score
            with pytest.raises(ValueError, match=r"left|without any score"):
                update()
            assert router._fit is before
            return
        update()
        if "later" in operation:
            assert not router.describe()["compact"]
            same_router(router, expected, leave_out=(*COMPACTED, "compact"))
            router.compact()
        same_router(router, expected)
        assert router.table == twin.table()[0]


def small(seed=0, **options):
    rng = np.random.default_rng(seed)
    dataset = np.repeat(np.arange(3), 20)
    table = make_table((rng.random((60, 3)) > 0.5).astype(np.float32), dataset)
    return Router.fit(
        table, embeddings=unit_rows(60, DIM, seed), settings=Settings(**OPTIONS, **options)
    )


def more(n=5, names=("new",), models=("model 0", "model 1", "model 2"), seed=7, **fields):
    rng = np.random.default_rng(seed)
    scores = (rng.random((n, len(models))) > 0.5).astype(np.float32)
    ids = [f"added {i}" for i in range(n)]
    codes = np.arange(n) % len(names)
    table = make_table(scores, codes, datasets=names, models=models, sample_ids=ids, **fields)
    return table, unit_rows(n, DIM, seed)


# --- before a compact -----------------------------------------------------------------------------


def test_records_vote_before_the_next_compact_and_nothing_else_was_learnt(tmp_path):
    router = small()
    before = router._fit
    table, rows = more()
    router.add_records(table, rows, compact=False)
    nearest = router.explain(embedding=rows[2]).neighbours[0]
    assert (nearest.dataset, nearest.sample_id) == ("new", "added 2")
    after = router._fit
    for name in ("distance_limit", "tau"):
        assert getattr(after, name) == getattr(before, name)
    assert_array_equal(after.pairs.p, before.pairs.p)
    assert router.datasets == ("dataset 0", "dataset 1", "dataset 2", "new")
    assert_array_equal(np.isnan(after.benchmark_u), [False, False, False, True])
    fresh = Router.fit(router.table, embeddings=after.embeddings, settings=Settings(**OPTIONS))
    assert_array_equal(after.prior, fresh._fit.prior)
    decision = router.choose(embeddings=-QUERIES)
    assert decision.benchmark_distances.shape == (4,)
    router.save(tmp_path / "R")
    loaded = Router.load(tmp_path / "R")
    assert loaded.describe() == router.describe()
    assert loaded.choose(embeddings=-QUERIES).to_dict() == decision.to_dict()
    loaded.compact()
    same_router(loaded, fresh)


def test_compact_of_a_compact_router_changes_nothing():
    router = small()
    before = router._fit
    router.compact()
    assert router._fit is before


# --- what is kept ---------------------------------------------------------------------------------


def test_a_dataset_keeps_its_threshold_and_a_new_one_brings_its_own():
    router = small()
    table, rows = more(
        6, ("dataset 1", "new"), metrics=("other", "f1"), thresholds=np.array([0.9, 0.7])
    )
    router.add_records(table, rows)
    assert router.table.thresholds.tolist() == [0.5, 0.5, 0.5, 0.7]
    assert router.table.metrics == ("", "", "", "f1")


def test_a_named_fallback_stays_and_the_default_one_follows_the_best():
    named = small(fallback="model 2")
    named.remove(models=["model 0"])
    assert named.describe()["fallback"] == "model 2"
    with pytest.raises(ValueError, match="'model 2' is the router's fallback"):
        named.remove(models=["model 2"])
    followed = small()
    followed.remove(models=[followed.best_on_average])
    assert followed.describe()["fallback"] == followed.best_on_average


def test_scores_given_as_an_array_make_a_model():
    router = small()
    scores = np.r_[np.ones(30), np.full(10, np.nan), np.zeros(20)]
    router.add_model("array", scores)
    assert router.models[3] == "array"
    assert_array_equal(router.table.scores[:, 3], scores)


def test_the_encoder_sees_only_the_new_prompts():
    class Stub:
        fingerprint = None
        seen = ()

        def encode(self, prompts):
            self.seen += tuple(prompts)
            return unit_rows(len(prompts), DIM, seed=7)

    router = small()
    router._embedder._encoder = Stub()
    table, rows = more()
    router.add_records(table)
    assert router._embedder._encoder.seen == tuple(table.prompts)
    assert_array_equal(router._fit.embeddings[60:], rows)


# --- errors name what they found, and leave the router as it was ----------------------------------


def bad_updates(router):
    table, rows = more()
    known = router.table.rows([3, 4])
    other = make_table([[1.0]], [0], models=("new",), prompts=["another prompt"])
    return {
        r"models that the router lacks: strange": lambda: router.add_records(
            *more(models=("strange",))
        ),
        r"already has the records .*'dataset 0' 'sample 3', 'dataset 0' 'sample 4'": lambda: (
            router.add_records(known, unit_rows(2, DIM))
        ),
        r"repeats the records .*'new' 'twice'": lambda: router.add_records(
            table.rows([0, 1]).__class__(
                **{
                    **{f.name: getattr(table, f.name) for f in dataclasses.fields(table)},
                    "sample_ids": ["twice"] * 5,
                }
            ),
            rows,
        ),
        r"dim 4, the router's have dim 6": lambda: router.add_records(table, unit_rows(5, 4)),
        r"embeddings have 4 rows, expected 5": lambda: router.add_records(table, rows[:4]),
        r"already has the model 'model 1'": lambda: router.add_model("model 1", table),
        r"no model 'absent' in the table": lambda: router.add_model("absent", table),
        r"does not have the records .*'new' 'added 0'": lambda: router.add_model(
            "m", dataclasses.replace(table, models=("m", "n", "o"))
        ),
        r"another prompt for the records .*'dataset 0' 'sample 0'": lambda: router.add_model(
            "new", other
        ),
        r"floats of shape \(60,\), got float64 \(3,\)": lambda: router.add_model("m", np.ones(3)),
        r"models without any score: m": lambda: router.add_model("m", np.full(60, np.nan)),
        r"unknown models \['nobody'\]": lambda: router.remove(models=["nobody"]),
        r"unknown datasets \['none'\]": lambda: router.remove(datasets=["none"]),
        r"does not have the records .*'dataset 0' 'sample 59'": lambda: router.remove(
            records=[("dataset 0", "sample 59")]
        ),
        r"nothing would be left: 0 models": lambda: router.remove(models=router.models),
        r"sequence of names, got the text 'model 0'": lambda: router.remove(models="model 0"),
    }


def test_a_bad_update_says_why_and_changes_nothing():
    router = small()
    before = router._fit
    for words, update in bad_updates(router).items():
        with pytest.raises((ValueError, TypeError), match=words):
            update()
        assert router._fit is before, words


def test_many_records_at_fault_are_counted():
    with pytest.raises(ValueError, match=r"'new' 'added 4' and 3 more"):
        with_records(more(8)[0], more(8)[0])


# --- readers --------------------------------------------------------------------------------------


def test_readers_see_the_router_before_or_after_and_no_mixture():
    router = small()
    scores = router.table.scores[:, 0]
    answers = {}

    def remember():
        decisions = router.route(embeddings=QUERIES)
        answers[decisions.models] = (
            decisions.model.tolist(),
            router.choose(embeddings=QUERIES).to_dict(),
        )

    remember()
    router.remove(models=["model 0"])
    remember()
    router.add_model("model 0", scores)
    remember()
    assert len(answers) == 3
    seen, wrong, stop = set(), [], threading.Event()

    def read():
        while not stop.is_set():
            decisions = router.route(embeddings=QUERIES)
            task = router.choose(embeddings=QUERIES)
            seen.add(decisions.models)
            if (
                decisions.models not in answers
                or answers[decisions.models][0] != decisions.model.tolist()
                or answers[task.models][1] != task.to_dict()
            ):
                wrong.append(decisions.models)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(12):
        router.remove(models=["model 0"])
        router.add_model("model 0", scores)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert len(seen) == 2


def test_updates_from_many_threads_take_turns():
    router = small()
    parts = [more(3, (f"set {i}",), seed=i) for i in range(6)]
    threads = [threading.Thread(target=router.add_records, args=part) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert router.table.n_records == 60 + 18
    assert len(router.datasets) == 3 + 6
    fresh = Router.fit(
        router.table, embeddings=router._fit.embeddings, settings=Settings(**OPTIONS)
    )
    same_router(router, fresh)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_changes_a_saved_router(tmp_path):
    router = small()
    router.save(tmp_path / "R")
    table, rows = more()
    np.save(tmp_path / "new.npy", rows)
    ones = dataclasses.replace(
        router.table.rows(np.arange(20, 60)),
        scores=np.ones((40, 1), np.float32),
        models=("added",),
        params_b=np.array([np.nan]),
        prices=np.full((1, 2), np.nan),
    )
    result = call(
        *("update", tmp_path / "R", "--remove-model", "model 1", "--remove-dataset", "dataset 0"),
        *("--add-model", write(ones, tmp_path / "model.parquet")),
        *(
            "--add-records",
            write(table.select(models=["model 0", "model 2"]), tmp_path / "new.parquet"),
        ),
        *("--embeddings", tmp_path / "new.npy", "--json"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["models"] == ["model 0", "model 2", "added"]
    assert (found["records"], found["datasets"]) == (45, 3)
    router.remove(models=["model 1"], datasets=["dataset 0"])
    router.add_model("added", np.ones(40))
    router.add_records(table.select(models=["model 0", "model 2"]), rows)
    same_router(Router.load(tmp_path / "R"), router)


def test_the_command_refuses_without_touching_the_router(tmp_path):
    small().save(tmp_path / "R")
    before = (tmp_path / "R" / "router.json").read_bytes()
    for code, words, arguments in (
        (2, "nothing to add", []),
        (1, "unknown models ['nobody']", ["--remove-model", "nobody"]),
        (3, "records no encoder", ["--add-records", write(more()[0], tmp_path / "n.parquet")]),
    ):
        result = call("update", tmp_path / "R", *arguments)
        assert result.exit_code == code, result.output
        assert words in " ".join(result.output.split())
    assert (tmp_path / "R" / "router.json").read_bytes() == before


def test_a_fallback_named_when_a_router_is_loaded_stays_as_well(tmp_path):
    small().save(tmp_path / "R")
    loaded = Router.load(tmp_path / "R", fallback="model 2")
    loaded.remove(models=["model 0"])
    assert loaded.describe()["fallback"] == "model 2"
    with pytest.raises(ValueError, match="'model 2' is the router's fallback"):
        loaded.remove(models=["model 2"])
