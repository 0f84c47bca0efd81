"""The router on disk: whole or not at all, checked, memory-mapped, without pickle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tables import make_table, unit_rows

from benchrouter import Router, Settings
from benchrouter.embeddings import Fingerprint
from benchrouter.scores import saved

ROOT = Path(__file__).resolve().parents[2]
QUERIES = unit_rows(30, 8, seed=3)


def fitted(missing=False, continuous=False, thresholds=0.5, **options):
    rng = np.random.default_rng(0)
    scores = rng.random((120, 3)).astype(np.float32)
    if not continuous:
        scores = (scores > 0.5).astype(np.float32)
    if missing:
        scores[rng.random(scores.shape) < 0.2] = np.nan
    table = make_table(
        scores,
        np.arange(120) % 3,
        prompts=[f"prompt {i} \u2028 ünïcode" for i in range(120)],
        thresholds=np.full(3, thresholds),
        params_b=np.array([7.0, np.nan, 70.0]),
        cost_usd=rng.random((120, 3)).astype(np.float32),
    )
    return Router.fit(
        table, embeddings=unit_rows(120, 8), settings=Settings(label_shares=(0.0, 0.1), **options)
    )


def same(one, two, rules=("mean", "raw", "s3"), tasks=True):
    for rule in rules:
        first = one.route(embeddings=QUERIES, rule=rule)
        second = two.route(embeddings=QUERIES, rule=rule)
        for name in ("model", "score", "margin", "distance", "fallback"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert (
            one.explain(embedding=QUERIES[0], rule=rule).to_dict()
            == two.explain(embedding=QUERIES[0], rule=rule).to_dict()
        )
    if tasks:
        assert one.choose(embeddings=QUERIES).to_dict() == two.choose(embeddings=QUERIES).to_dict()
    assert one.describe() == two.describe()


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("continuous", [False, True])
def test_a_loaded_router_is_the_saved_one(tmp_path, missing, continuous):
    router = fitted(missing, continuous, fallback="model 2")
    router.save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    same(router, loaded)
    loaded.save(tmp_path / "again")
    same(router, Router.load(tmp_path / "again"))


def test_raw_only_and_single_dataset_routers_are_stored_too(tmp_path):
    router = fitted(continuous=True, thresholds=float("nan"))
    router.save(tmp_path / "raw")
    same(router, Router.load(tmp_path / "raw"), rules=("mean", "raw"), tasks=False)
    single = Router.fit(make_table([[1.0, 0.0]], [0]), embeddings=unit_rows(1, 8))
    single.save(tmp_path / "single")
    same(single, Router.load(tmp_path / "single"), rules=("mean", "raw"))


def test_arrays_are_memory_mapped_and_nothing_is_pickled(tmp_path):
    fitted().save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    assert isinstance(loaded._fit.embeddings, np.memmap)
    assert isinstance(loaded._fit.raw.bits, np.memmap)
    names = {path.name for path in (tmp_path / "router").iterdir()}
    assert {"router.json", "records.arrow", "embeddings.npy", "correct_bits.npy"} <= names
    assert {Path(name).suffix for name in names} == {".json", ".arrow", ".npy"}
    for path in (tmp_path / "router").glob("*.npy"):
        np.load(path, allow_pickle=False)


def test_the_fingerprint_is_kept_and_another_encoder_refused(tmp_path):
    print_of = dict(
        name="a", revision=None, weights_sha256="00", pooling="mean", max_tokens=256, dim=8,
        normalize=True, dtype="float32",
    )  # fmt: skip
    table = make_table(np.eye(8)[:, :2], np.arange(8) % 3)

    class Stub:
        fingerprint = Fingerprint(**print_of)

    Router.fit(table, embeddings=unit_rows(8, 8), encoder=Stub()).save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    loaded.check_encoder(Fingerprint(**{**print_of, "dtype": "float16"}))
    with pytest.raises(ValueError, match="another encoder: .*weights"):
        loaded.check_encoder(Fingerprint(**{**print_of, "weights_sha256": "ff"}))

    class Other:
        fingerprint = Fingerprint(**{**print_of, "max_tokens": 128})

    with pytest.raises(ValueError, match="another encoder: .*128"):
        Router.load(tmp_path / "router", encoder=Other())


@pytest.mark.parametrize(
    "name",
    ["router.json", "records.arrow", "embeddings.npy", "correct_bits.npy", "correct_present.npy",
     "dataset.npy", "means.npy", "raw_means.npy", "pair_u.npy", "pair_p.npy",
     "record_cost_usd.npy"],
)  # fmt: skip
def test_a_flipped_byte_in_any_file_is_found(tmp_path, name):
    fitted(missing=True).save(tmp_path / "router")
    path = tmp_path / "router" / name
    content = bytearray(path.read_bytes())
    for at in (0, len(content) // 2, len(content) - 2):
        content[at] ^= 0x04
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} (is damaged|is not a router|has format)"):
            Router.load(tmp_path / "router")
        content[at] ^= 0x04
    path.write_bytes(content)
    Router.load(tmp_path / "router")


def test_missing_short_and_foreign_files(tmp_path):
    fitted().save(tmp_path / "router")
    with pytest.raises(ValueError, match="is not a router: it has no router.json"):
        Router.load(tmp_path)
    shutil.copytree(tmp_path / "router", tmp_path / "short")
    with open(tmp_path / "short" / "embeddings.npy", "r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match="embeddings.npy is damaged: it has 100 bytes, recorded"):
        Router.load(tmp_path / "short", verify=False)
    (tmp_path / "short" / "embeddings.npy").unlink()
    with pytest.raises(ValueError, match="embeddings.npy is missing"):
        Router.load(tmp_path / "short")
    description = tmp_path / "router" / "router.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(ValueError, match="format version 99, this release reads 4"):
        Router.load(tmp_path / "router")
    description.write_text("[]")
    with pytest.raises(ValueError, match="no format_version"):
        Router.load(tmp_path / "router")


def test_a_directory_that_is_no_router_is_never_replaced(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="exists and is not a router"):
        fitted().save(tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_an_empty_directory_is_filled_and_a_file_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    router = fitted()
    router.save(tmp_path / "empty")
    same(router, Router.load(tmp_path / "empty"))
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match="exists and is a file, expected a directory"):
        router.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "text"


def test_replacing_a_router_leaves_the_loaded_one_valid(tmp_path):
    first = fitted()
    first.save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    second = fitted(missing=True)
    second.save(tmp_path / "router")
    same(first, loaded)
    same(second, Router.load(tmp_path / "router"))
    assert [path.name for path in tmp_path.iterdir()] == ["router"]


def test_a_failed_save_leaves_the_earlier_router(tmp_path, monkeypatch):
    router = fitted()
    router.save(tmp_path / "router")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved, "_write_records", full)
    with pytest.raises(OSError, match="No space left on device: '.*/router'"):
        fitted(missing=True).save(tmp_path / "router")
    assert [path.name for path in tmp_path.iterdir()] == ["router"]
    same(router, Router.load(tmp_path / "router"))


def test_kill_while_saving_leaves_a_whole_router(tmp_path):
    """A process that replaces a router again and again is killed; a whole one is always there."""
    router = fitted()
    router.save(tmp_path / "router")
    code = (
        "import sys\n"
        "from benchrouter import Router\n"
        "router = Router.load(sys.argv[1])\n"
        "print('saving', flush=True)\n"
        "while True: router.save(sys.argv[1])\n"
    )
    for wait in (0.0, 0.02, 0.05, 0.11):
        command = [sys.executable, "-c", code, str(tmp_path / "router")]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "saving\n"
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        same(router, Router.load(tmp_path / "router"))


def test_a_link_is_followed_and_kept(tmp_path):
    fitted().save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    second = fitted(missing=True)
    second.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    same(second, Router.load(tmp_path / "real"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_router_with_other_files_beside_it_is_not_replaced(tmp_path):
    fitted().save(tmp_path / "router")
    (tmp_path / "router" / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds 'note.txt' beside a router"):
        fitted().save(tmp_path / "router")
    assert (tmp_path / "router" / "note.txt").read_text() == "mine"


def forged(root, change):
    """Change the description and make its hash right again."""
    path = root / "router.json"
    content = json.loads(path.read_text())
    change(content)
    content["sha256"] = saved._own_hash(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["files"].pop("embeddings.npy"), "does not describe a router: .*embeddings"),
        (lambda c: c.pop("files"), "does not describe a router: .*files"),
        (lambda c: c["settings"].update(extra=1), "does not describe a router: .*extra"),
        (lambda c: c["files"].update({"../x": {}}), "lists '../x', which is no file of a router"),
        (lambda c: c.update(fallback=99), "fallback that is not one of its models"),
        (
            lambda c: c.update(n_records=7),
            r"own_distance.npy has float32 \(120,\), .*float32 \(7,\)",
        ),
        (lambda c: c["models"].pop(), "auto_of_dataset.npy has"),
    ],
)
def test_a_description_that_fits_no_router_is_refused(tmp_path, change, words):
    fitted().save(tmp_path / "router")
    forged(tmp_path / "router", change)
    with pytest.raises(ValueError, match=words):
        Router.load(tmp_path / "router")


def test_the_directory_says_from_what_p_was_estimated(tmp_path, monkeypatch):
    fitted().save(tmp_path / "all")
    monkeypatch.setattr("benchrouter.scores.held_out.ALL_RECORDS", 50)
    monkeypatch.setattr("benchrouter.scores.saved.ALL_RECORDS", 50)
    fitted().save(tmp_path / "some")
    said = [
        json.loads((tmp_path / name / "router.json").read_text())["estimated_from"]
        for name in ("all", "some")
    ]
    assert said == ["every record", "at most 500 records a dataset"]


def test_a_router_saved_before_the_package_was_rearranged_decides_as_it_did():
    folder = Path(__file__).with_name("saved_by_0.1.0")
    before = json.loads((folder / "decisions.json").read_text())
    router = Router.load(folder / "router")
    queries = unit_rows(12, 8, seed=2)
    for rule in ("auto", "mean", "raw", "s3"):
        found = router.route(embeddings=queries, rule=rule)
        assert found.names() == before[rule]["models"]
        np.testing.assert_allclose(found.score, before[rule]["scores"], rtol=1e-6)
    assert router.choose(embeddings=queries).model == before["choose"]["model"]
