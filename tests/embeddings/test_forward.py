"""Our forward passes against those of transformers, and what carries batches to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_encoder import REAL_MPNET, WORDS, prompts_of, write_bert, write_json, write_mpnet

from benchrouter.embeddings import Encoder, TruncationWarning
from benchrouter.embeddings.batching import Run, positions_of, runs_of
from benchrouter.embeddings.weights.layout import read_layout

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from benchrouter.embeddings import devices  # noqa: E402
from benchrouter.embeddings.network import forward, products  # noqa: E402
from benchrouter.embeddings.network.network import Network  # noqa: E402
from benchrouter.embeddings.network.quantized import QuantizedProduct  # noqa: E402
from benchrouter.embeddings.network.workers import Workers  # noqa: E402


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory) -> Path:
    return write_mpnet(tmp_path_factory.mktemp("mpnet"))


@pytest.fixture(scope="module")
def real_mpnet(tmp_path_factory) -> Path:
    """The real configuration of all-mpnet-base-v2 with random weights."""
    return write_mpnet(tmp_path_factory.mktemp("real"), max_seq_length=384, **REAL_MPNET)


def network_of(folder: Path, **options) -> Network:
    files = read_layout(folder, name=str(folder))
    limit = files.token_limit()
    return Network(files, "cpu", options.pop("dtype", "float32"), limit, **options)


def rows_of(folder: Path, lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    """Random tokens, special ones left out."""
    config = json.loads((folder / "config.json").read_text())
    rng = np.random.default_rng(seed)
    return [rng.integers(4, config["vocab_size"], n).astype(np.int32) for n in lengths]


def theirs(folder: Path, rows: list[np.ndarray]) -> np.ndarray:
    """transformers' forward, eager, one prompt at a time; mean-pooled in float64."""
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    found = []
    for row in rows:
        with torch.no_grad():
            hidden = model(input_ids=torch.from_numpy(row.astype(np.int64))[None])[0][0]
        mean = hidden.double().numpy().mean(axis=0)
        found.append(mean / np.linalg.norm(mean))
    return np.array(found)


def embedded(network: Network, rows: list[np.ndarray]) -> np.ndarray:
    found = np.full((len(rows), network(rows[:1]).shape[1]), np.nan, dtype=np.float32)
    for places, part in network.embed(rows):
        found[places] = part.numpy()
    return found


# --- the same numbers as transformers ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_equal_at_every_length(kind, request):
    folder = request.getfixturevalue(kind)
    rows = rows_of(folder, list(range(1, 49)))
    expected = theirs(folder, rows)
    network = network_of(folder, batch_tokens=200)
    assert network._forward is not None
    assert_allclose(embedded(network, rows), expected, atol=1e-5)
    alone = np.concatenate([network([row]).numpy() for row in rows])
    assert_allclose(alone, expected, atol=1e-5)
    filled = padded(network, rows)
    assert_allclose(filled, expected, atol=1e-5)
    assert np.abs(expected[0] - expected[30]).max() > 0.05  # rows differ: constants would not pass


def padded(network: Network, rows: list[np.ndarray]) -> np.ndarray:
    """What a GPU runs: one rectangle with filler and a mask."""
    with torch.inference_mode():
        return network._in_one_run(rows, network._forward).numpy()


def test_mpnet_of_the_real_size_at_eight_lengths(real_mpnet):
    rows = rows_of(real_mpnet, [1, 2, 17, 64, 128, 129, 200, 384])
    expected = theirs(real_mpnet, rows)
    network = network_of(real_mpnet)
    assert_allclose(embedded(network, rows), expected, atol=1e-5)
    assert_allclose(padded(network, rows), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_poolings_agree_with_and_without_filler(kind, pooling, tmp_path):
    write = {"bert": write_bert, "mpnet": write_mpnet}[kind]
    folder = write(tmp_path, pooling=pooling)
    network = network_of(folder)
    rows = rows_of(folder, [3, 3, 9, 1, 30])
    assert_allclose(padded(network, rows), network(rows).numpy(), atol=1e-5)


def test_products_of_torch_and_of_onednn_agree(real_mpnet, monkeypatch):
    rows = rows_of(real_mpnet, [5, 5, 70])
    packed = network_of(real_mpnet)
    if products.can_pack(torch.zeros(1, 1)):
        first = packed._forward._layers[0]
        assert isinstance(first.up, products.PackedProduct)
    monkeypatch.setattr(products, "can_pack", lambda weight: False)
    plain = network_of(real_mpnet)
    assert isinstance(plain._forward._layers[0].up, products.PlainProduct)
    assert_allclose(packed(rows).numpy(), plain(rows).numpy(), atol=2e-6)


def test_a_spelled_out_filler_has_the_position_that_transformers_gives_it(mpnet):
    # MPNet's positions count the tokens that are no filler, wherever it stands.
    row = np.array([0, 5, 1, 6, 1, 1, 7, 2], dtype=np.int32)
    assert_array_equal(positions_of(row[None], 1), [[2, 3, 1, 4, 1, 1, 5, 6]])
    network = network_of(mpnet)
    assert_allclose(network([row]).numpy(), theirs(mpnet, [row]), atol=1e-5)
    assert_array_equal(positions_of(row[None]), [[0, 1, 2, 3, 4, 5, 6, 7]])


def test_relative_positions_fall_into_the_buckets_of_transformers():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    at = torch.arange(600)
    relative = at[None, :] - at[:, None]
    expected = MPNetEncoder.relative_position_bucket(relative, num_buckets=32)
    assert torch.equal(forward._buckets(600), expected)


def test_half_precision_is_near(real_mpnet):
    rows = rows_of(real_mpnet, [4, 30, 100])
    exact = network_of(real_mpnet)(rows).double()
    for dtype in ("bfloat16", "float16"):
        near = network_of(real_mpnet, dtype=dtype)(rows).double()
        assert (exact * near).sum(dim=1).min() > 0.999
        assert not torch.equal(exact, near)


needs_vnni = pytest.mark.skipif(not devices.multiplies_int8(), reason="this CPU has no VNNI")


@needs_vnni
@pytest.mark.parametrize("bfloat16", [False, True])
def test_int8_is_near_and_does_not_depend_on_the_batch(real_mpnet, monkeypatch, bfloat16):
    monkeypatch.setattr(forward, "multiplies_bfloat16", lambda: bfloat16)
    rows = rows_of(real_mpnet, [4, 30, 30, 100])
    exact = network_of(real_mpnet)(rows).double()
    network = network_of(real_mpnet, dtype="int8")
    assert network._forward._dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    near = network(rows)
    assert (exact * near).sum(dim=1).min() > 0.99
    alone = torch.cat([network([row]) for row in rows])
    # sums of integers are exact; what lies between them is rounded by row
    assert_allclose(near, alone, atol=2e-3 if bfloat16 else 1e-5)


@needs_vnni
def test_int8_products_are_those_of_the_rounded_numbers():
    rng = np.random.default_rng(0)
    weight, bias, x, residual = (
        torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        for shape in ((48, 32), (48,), (7, 32), (7, 48))
    )

    def rounded(rows):
        scale = rows.abs().amax(dim=1, keepdim=True).double() / 127
        return torch.round(rows / scale) * scale

    expected = rounded(x) @ rounded(weight).T + bias
    product = QuantizedProduct(weight, bias)
    assert_allclose(product(x), expected, atol=1e-4)
    assert_allclose(product.gelu(x), torch.nn.functional.gelu(expected), atol=2e-4)
    assert_allclose(product.plus(x, residual), expected + residual, atol=1e-4)


def test_int8_is_refused_where_nothing_multiplies_it(bert, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="dtype 'int8': found device 'cuda:0', expected 'cpu'"):
        devices.check_dtype("int8", "cuda:0")
    folder = tmp_path / "other"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "hidden_act": "relu"})
    with pytest.raises(ValueError, match=r"through transformers \(bert\).* for dtype 'int8'"):
        network_of(folder, dtype="int8")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False, raising=False)
    with pytest.raises(ValueError, match="dtype 'int8': found a CPU without VNNI"):
        Encoder.load(bert, dtype="int8")


# --- which checkpoints are ours ------------------------------------------------------------------


def test_prefixed_checkpoints_are_read(bert, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(bert, folder)
    weights = load_file(folder / "model.safetensors")
    named = {f"bert.{name}": w for name, w in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    network = network_of(folder)
    assert network._forward is not None
    rows = rows_of(bert, [3, 8])
    assert_array_equal(network(rows).numpy(), network_of(bert)(rows).numpy())


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"model_type": "roberta"},
    ],
)
def test_other_architectures_are_not_ours(bert, change):
    config = json.loads((bert / "config.json").read_text())
    assert forward.is_ours(config)
    assert not forward.is_ours({**config, **change})


def test_another_activation_runs_through_transformers(tmp_path):
    folder = write_bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "hidden_act": "relu"})
    network = network_of(folder)
    assert network._forward is None
    rows = rows_of(folder, [2, 5, 5, 40])
    assert_allclose(embedded(network, rows), theirs(folder, rows), atol=1e-5)


# --- batches --------------------------------------------------------------------------------------


def test_runs_by_hand():
    assert runs_of([7, 7, 3, 2, 2, 2]) == [Run(2, 7), Run(1, 3), Run(3, 2)]


def test_workers_run_batches_side_by_side_in_order_and_pass_errors_on():
    workers = Workers(2)
    threads = torch.get_num_threads()
    both = threading.Barrier(2, timeout=30)

    def run(number: int) -> tuple[int, int]:
        if number < 2:
            both.wait()  # passes only if two run at once
        return number, torch.get_num_threads()

    found = list(workers.map(run, range(20)))
    assert [number for number, _ in found] == list(range(20))
    assert {count for _, count in found} == {1}
    # the caller's threads, and those of others, keep theirs
    assert torch.get_num_threads() == threads
    fresh = []
    other = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert fresh == [threads]
    assert list(workers.map(lambda _: threading.current_thread(), [0])) == [
        threading.current_thread()
    ]
    with pytest.raises(ZeroDivisionError):
        list(workers.map(lambda number: 1 // number, [1, 0, 1]))


def test_a_small_job_is_shared_by_all_cores(bert, monkeypatch):
    network = network_of(bert)
    network._workers = Workers(4)
    sizes = []
    call = Network.__call__
    monkeypatch.setattr(
        Network, "__call__", lambda self, rows: (sizes.append(len(rows)), call(self, rows))[1]
    )
    list(network.embed(rows_of(bert, [20] * 8)))
    assert sorted(sizes) == [2, 2, 2, 2]


class Small:
    """A device that holds no more than so many tokens at a time."""

    def __init__(self, monkeypatch, tokens: int) -> None:
        self.tokens = tokens
        self.tried: list[int] = []
        call = Network.__call__

        def held(network, rows):
            size = sum(map(len, rows))
            self.tried.append(size)
            if size > self.tokens:
                raise torch.OutOfMemoryError(f"{size} tokens")
            return call(network, rows)

        monkeypatch.setattr(Network, "__call__", held)


def test_batches_back_off_when_memory_runs_out_and_recover(bert, monkeypatch):
    rows = rows_of(bert, [10] * 64)
    network = network_of(bert, batch_tokens=160)
    network._workers = Workers(1)
    expected = embedded(network, rows)
    device = Small(monkeypatch, 50)
    assert_allclose(embedded(network, rows), expected, atol=1e-6)
    # one batch of 160 and one of its halves failed, then all were cut beforehand
    assert [size for size in device.tried if size > 50] == [160, 80]
    device.tokens, device.tried = 10**6, []
    assert_allclose(embedded(network, rows * 8), np.tile(expected, (8, 1)), atol=1e-6)
    assert device.tried[1] <= 40  # (the first is the single row that tells the dim)
    assert device.tried[-1] == 160  # larger ones were tried again


def test_a_single_prompt_that_does_not_fit_is_an_error(bert, monkeypatch):
    encoder = Encoder.load(bert)
    Small(monkeypatch, 5)
    with pytest.raises(torch.OutOfMemoryError, match="12 tokens"):
        encoder.encode(prompts_of([10]))


def test_ctrl_c_ends_encoding_and_leaves_the_encoder_usable(bert):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    encoder = Encoder.load(bert, batch_tokens=64)
    encoder._network._workers = Workers(2)
    few = prompts_of([40, 40, 40])
    expected = encoder.encode(few)
    tokens = rows_of(bert, [40] * 2000)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            while True:
                list(encoder._network.embed(tokens))
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert_array_equal(encoder.encode(few), expected)


# --- truncation, tensors, devices -----------------------------------------------------------------


def test_truncated_prompts_are_counted(bert):
    encoder = Encoder.load(bert)  # 48 tokens, 2 of them special
    fits, long = prompts_of([46, 47])
    words = r"^2 of 5 prompts encoded \(40.0%\) did not fit into 48 tokens and lost their end$"
    prompts = [fits, long, "w1", long, fits]
    for encode in (
        lambda: encoder.encode(prompts),
        lambda: list(encoder.encode_stream(prompts)),
        lambda: encoder.encode_tensor(prompts),
        lambda: encoder.encode_tensor(encoder.tokenise(prompts)),
    ):
        with pytest.warns(TruncationWarning, match=words) as caught:
            encode()
        assert caught[0].filename == __file__
    assert encoder.encode([fits]).shape == (1, 32)  # where warnings are errors


def test_tensor_equals_array(bert):
    encoder = Encoder.load(bert)
    texts = prompts_of([3, 0, 40, 3], seed=1) * 2
    found = encoder.encode_tensor(texts)
    assert found.device.type == "cpu" and found.dtype == torch.float32
    assert_array_equal(found.numpy(), encoder.encode(texts))
    assert encoder.encode_tensor([]).shape == (0, 32)
    tokens = encoder.tokenise(texts)
    assert len(tokens) == len(texts)
    assert_array_equal(encoder.encode_tensor(tokens).numpy(), found.numpy())
    assert encoder.encode_tensor(encoder.tokenise([])).shape == (0, 32)
    with pytest.raises(TypeError, match="an iterable of str, got a single str"):
        encoder.tokenise("abc")
    with pytest.raises(TypeError, match="an iterable of str, got a single str"):
        encoder.encode_tensor("abc")


def test_windows_are_prepared_ahead_where_the_device_is_another(bert, monkeypatch):
    encoder = Encoder.load(bert)
    texts = prompts_of([5] * 30)
    expected = encoder.encode(texts)
    prepared, embedded = [], []
    prepare, embed = Encoder._prepare, Encoder._embed

    def slow(self, tokens):
        until = time.monotonic() + 30
        embedded.append(len(prepared))
        while len(prepared) < min(len(embedded) + 1, 3) and time.monotonic() < until:
            time.sleep(0.001)  # the next window is tokenised meanwhile
        encoder.device = "cpu"  # where the tensors are
        return embed(self, tokens)

    monkeypatch.setattr(Encoder, "_prepare", lambda *a: (prepared.append(0), prepare(*a))[1])
    monkeypatch.setattr(Encoder, "_embed", slow)
    encoder.device = "elsewhere"
    pieces = list(encoder.encode_stream(iter(texts), window=10))
    assert_allclose(np.concatenate(pieces), expected, atol=1e-6)
    assert len(prepared) == 3 and [len(piece) for piece in pieces] == [10, 10, 10]
    encoder.device = "elsewhere"
    with pytest.raises(TypeError, match=r"prompts\[12\] must be a str, got int"):
        list(encoder.encode_stream([*texts[:12], 3], window=10))


def test_auto_dtype_is_what_the_cpu_multiplies(monkeypatch):
    for bfloat16, amx, expected in ((0, 0, "float32"), (1, 0, "bfloat16"), (0, 1, "bfloat16")):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda has=bfloat16: bool(has), raising=False
        )
        monkeypatch.setattr(
            torch.cpu, "_is_amx_tile_supported", lambda has=amx: bool(has), raising=False
        )
        assert devices.check_dtype("auto", "cpu") == expected
    assert devices.check_dtype("float16", "cpu") == "float16"


def test_auto_dtype_of_a_gpu_depends_on_its_age(monkeypatch):
    for capability, expected in (((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d, c=capability: c)
        assert devices.check_dtype("auto", "cuda:0") == expected


def test_weights_are_loaded_without_transformers(bert):
    import subprocess
    import sys

    code = (
        "import sys; from benchrouter import Encoder;"
        "Encoder.load(sys.argv[1]).encode(['w1 w2']); print('transformers.models' in sys.modules)"
    )
    run = [sys.executable, "-c", code, str(bert)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "False\n"
    assert WORDS[1] == "w1"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_gpu_agrees_with_the_cpu(real_mpnet, bert, dtype):
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device on this machine")
    for folder in (real_mpnet, bert):
        texts = prompts_of([1, 5, 30, 60, 200, 5] * 20)
        there = Encoder.load(folder, device="cuda", dtype=dtype)
        tensor = there.encode_tensor(texts)
        assert tensor.is_cuda
        here = Encoder.load(folder, dtype="float32").encode(texts)
        assert (tensor.cpu().numpy() * here).sum(axis=1).min() > (
            0.99999 if dtype == "float32" else 0.999
        )


def test_batches_of_a_cpu_have_few_sizes(bert, monkeypatch):
    """OneDNN makes, and keeps, a kernel for every number of rows."""
    sizes = []
    plain = forward.Forward.__call__

    def counted(self, tokens, *rest):
        sizes.append(len(tokens))
        return plain(self, tokens, *rest)

    monkeypatch.setattr(forward.Forward, "__call__", counted)
    encoder = Encoder.load(bert)
    prompts = prompts_of([3, 17, 30, 44, 5, 14])
    alone = np.concatenate([encoder.encode([prompt]) for prompt in prompts])
    assert len(set(sizes)) < len(sizes) and all(size % 16 == 0 for size in sizes)
    np.testing.assert_allclose(encoder.encode(prompts), alone, atol=2e-6)
