"""The network: batches of token numbers to unit rows on its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.batching import Run, pad, positions_of, runs_of, token_batches
from benchrouter.embeddings.devices import import_torch
from benchrouter.embeddings.network.forward import Forward, fits, is_ours, read_config, read_weights
from benchrouter.embeddings.network.pooling import pool, pool_runs, unit_rows
from benchrouter.embeddings.network.workers import Workers
from benchrouter.embeddings.weights.layout import EncoderFiles

if TYPE_CHECKING:
    from torch import Tensor

    from benchrouter.embeddings.network.through_transformers import TransformersModel

CPU_TOKENS = 512  # of a batch: its largest array, (512, 1536) to (512, 3072), stays in cache
# Tokens of a batch are rounded up to a multiple: oneDNN compiles a kernel for every number, which
# takes milliseconds, and keeps a thousand of them, which takes a gigabyte.
CPU_STEP = 16
CUDA_TOKENS = 65_536
LEAST_TOKENS = 16  # of a batch that is cut to occupy another core
BUCKET = 16  # lengths are rounded up to it on CUDA, which likes few shapes and aligned rows
RECOVERY = 32  # batches that fit before larger ones are tried again

Rows = Sequence[NDArray[np.int32]]


class Network:
    """Our own forward pass, or that of transformers; safe to call from many threads.

    Parameters
    ----------
    files : EncoderFiles
    device : str
        "cpu" or "cuda:N", checked by `check_device`.
    dtype : str
        "float32", "bfloat16", "float16" or "int8", checked by `check_dtype`.
    max_tokens : int
        Longest prompt, special tokens included.
    batch_tokens : int, optional
        Most tokens of a batch; by default what suits the device.

    Raises
    ------
    ImportError
        If torch or transformers is not installed.
    ValueError
        If the weights cannot be read or do not fit the architecture.
    """

    def __init__(
        self,
        files: EncoderFiles,
        device: str,
        dtype: str,
        max_tokens: int,
        batch_tokens: int | None = None,
    ) -> None:
        torch = import_torch()
        self._torch = torch
        self._device = torch.device(device)
        self._pooling = files.pooling
        self._pad_token_id = files.pad_token_id
        on_cpu = self._device.type == "cpu"
        self._budget = _Budget(batch_tokens or (CPU_TOKENS if on_cpu else CUDA_TOKENS))
        self._workers = Workers(torch.get_num_threads() if on_cpu else 1)
        self._forward: Forward | None = None
        self._model: TransformersModel | None = None
        config = read_config(files)
        weights = read_weights(files) if is_ours(config) else {}
        if weights and fits(config, weights):
            torch_dtype = getattr(torch, dtype)
            self._forward = Forward(config, weights, self._device, torch_dtype, max_tokens)
            self._first_position = files.pad_token_id if self._forward.is_mpnet else None
        else:
            from benchrouter.embeddings.network.through_transformers import TransformersModel

            if dtype == "int8":
                raise ValueError(
                    f"encoder {files.name}: found an architecture that runs through transformers "
                    f"({config.get('model_type')}), expected bert or mpnet for dtype 'int8'"
                )
            self._model = TransformersModel(files, self._device, dtype)

    def embed(self, rows: Rows) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Embed rows of tokens.

        Parameters
        ----------
        rows : sequence of int32 arrays
            Tokens of each prompt.

        Yields
        ------
        places : int64 array, shape (n,)
            Rows that a batch holds; every row stands in exactly one batch.
        embeddings : float32 tensor, shape (n, dim)
            Their unit rows, on the network's device.
        """
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        share = -(-int(lengths.sum()) // self._workers.count)
        tokens = min(self._budget.limit, max(share, LEAST_TOKENS))
        batches = token_batches(lengths, tokens)
        found = self._workers.map(
            lambda batch: self._backing_off([rows[i] for i in batch]), batches
        )
        yield from zip(batches, found, strict=True)

    def _backing_off(self, rows: Rows) -> Tensor:
        """Embed one batch, or its halves if it does not fit in the device's memory."""
        n_tokens = sum(len(row) for row in rows)
        if len(rows) == 1 or n_tokens <= self._budget.fitting:
            try:
                found = self(rows)
            except self._torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                self._budget.shrink(n_tokens)
            else:
                self._budget.fitted()
                return found
            self._torch.cuda.empty_cache()
        half = len(rows) // 2
        return self._torch.cat([self._backing_off(rows[:half]), self._backing_off(rows[half:])])

    def __call__(self, rows: Rows) -> Tensor:
        """Embed one batch.

        Parameters
        ----------
        rows : sequence of int32 arrays
            Tokens of each prompt; least padding where lengths are near each other.

        Returns
        -------
        float32 tensor, shape (n_rows, dim)
            Unit rows, on the network's device.
        """
        with self._torch.inference_mode():
            if self._forward is None:
                return self._through_transformers(rows)
            if self._device.type == "cpu":
                return self._without_padding(rows, self._forward)
            return self._in_one_run(rows, self._forward)

    def _without_padding(self, rows: Rows, forward: Forward) -> Tensor:
        n_rows = len(rows)
        rows = [*rows, *self._filler(sum(len(row) for row in rows))]
        runs = runs_of([len(row) for row in rows])
        tokens = np.concatenate(rows).astype(np.int64)
        positions, start = np.empty_like(tokens), 0
        for run in runs:
            part = slice(start, start + run.prompts * run.length)
            here = tokens[part].reshape(run)
            positions[part] = positions_of(here, self._first_position).ravel()
            start = part.stop
        hidden = forward(self._there(tokens), self._there(positions), runs)
        return unit_rows(pool_runs(hidden, runs, self._pooling)[:n_rows])

    def _filler(self, n_tokens: int) -> list[NDArray[np.int32]]:
        """One more row, which rounds up the number of tokens of a batch."""
        n_missing = -n_tokens % CPU_STEP
        return [np.full(n_missing, self._pad_token_id, np.int32)] if n_missing else []

    def _in_one_run(self, rows: Rows, forward: Forward) -> Tensor:
        tokens, mask = pad(rows, self._pad_token_id, BUCKET)
        positions = np.ascontiguousarray(positions_of(tokens, self._first_position))
        run = Run(*tokens.shape)
        mask_there = self._there(mask)
        is_token = None if mask.all() else mask_there.bool()
        flat, positions_there = self._there(tokens.ravel()), self._there(positions.ravel())
        hidden = forward(flat, positions_there, [run], is_token).view(*run, -1)
        return unit_rows(pool(hidden, mask_there, self._pooling))

    def _through_transformers(self, rows: Rows) -> Tensor:
        assert self._model is not None
        tokens, mask = (self._there(a) for a in pad(rows, self._pad_token_id))
        return unit_rows(pool(self._model(tokens, mask), mask, self._pooling))

    def _there(self, array: NDArray[np.int64]) -> Tensor:
        """Copy to the device; to a GPU from pinned memory, without waiting for it."""
        tensor: Tensor = self._torch.from_numpy(array)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


class _Budget:
    """Most tokens of a batch; fewer for a while after the device ran out of memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.fitting = limit
        self._fitted = 0

    def shrink(self, failed: int) -> None:
        """Allow half the tokens that did not fit."""
        self.fitting = max(1, min(self.fitting, failed // 2))
        self._fitted = 0

    def fitted(self) -> None:
        """Count a batch that fitted; after enough of them, allow twice as many tokens."""
        if self.fitting < self.limit:
            self._fitted += 1
            if self._fitted >= RECOVERY:
                self.fitting = min(self.limit, 2 * self.fitting)
                self._fitted = 0
