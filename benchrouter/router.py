"""The router: fit on a benchmark once, then choose a model for a task or route prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter import artifact, scores
from benchrouter.decisions import Decisions, Explanation, TaskDecision
from benchrouter.encoder import DEFAULT_ENCODER, as_unit_rows
from benchrouter.fit import Fit, Settings, fit
from benchrouter.holdout import DRAWS, LABEL_SHARES
from benchrouter.index import Index
from benchrouter.rules import Rule, Rules
from benchrouter.task import Score, choose_for_task

if TYPE_CHECKING:
    from torch import Tensor

    from benchrouter.encoder import Encoder, Fingerprint
    from benchrouter.rules_on_device import RulesOnDevice
    from benchrouter.table import BenchmarkTable


class Router:
    """Chooses models by the correctness of benchmark records near a prompt.

    Made by :meth:`fit` or :meth:`load`. All methods may be called from many threads at once.

    Examples
    --------
    >>> router = Router.fit(table, encoder="minilm")  # doctest: +SKIP
    >>> router.route(["What is 7 times 8?"]).names()  # doctest: +SKIP
    ['gemma-2-9b-it']
    """

    def __init__(
        self,
        fitted: Fit,
        *,
        encoder: Encoder | str | None = None,
        device: str = "cpu",
        cache_dir: str | Path | None = None,
        threads: int = 0,
    ) -> None:
        self._fit = fitted
        self._encoder = encoder
        self._device = _checked(device)
        self._on_device: RulesOnDevice | None = None
        self._cache_dir = cache_dir
        self._lock = threading.Lock()
        self._index = Index(fitted.embeddings, threads=threads, verify=False)
        self._rules = Rules(fitted, self._index)
        if encoder is not None and not isinstance(encoder, str):
            self.check_encoder(encoder.fingerprint)

    @classmethod
    def fit(
        cls,
        table: BenchmarkTable,
        *,
        encoder: Encoder | str | None = None,
        embeddings: NDArray[np.float32] | None = None,
        k: int = scores.K_HELM,
        kappa: int = scores.KAPPA,
        sigma: float = scores.SIGMA,
        eta: float = scores.ETA,
        threshold: float = scores.THRESHOLD,
        label_shares: Sequence[float] = LABEL_SHARES,
        draws: int = DRAWS,
        seed: int = 0,
        fallback: str | None = None,
        threads: int = 0,
        device: str = "cpu",
        cache_dir: str | Path | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Router:
        """Fit a router on benchmark results.

        Parameters
        ----------
        table : BenchmarkTable
            Records × models.
        encoder : Encoder or str, optional
            What turns prompts into embeddings: a loaded encoder, or the name of one (loaded only
            when a prompt must be encoded). By default all-mpnet-base-v2; where embeddings are
            given, unknown.
        embeddings : float16 or float32 array, shape (n_records, dim), optional
            Unit rows of the records, by the same encoder; encoded here where absent.
        k, kappa : int
            Neighbours that vote, and that measure distance.
        sigma, eta, threshold : float
            Kernel width, least chance of beating the best on average, vote that means "correct".
        label_shares : sequence of float
            α of the smoother's training pairs.
        draws, seed : int
            Of the training pairs.
        fallback : str, optional
            Model for prompts without evidence; the best on average by default.
        threads : int
            0 = all.
        device : str
            "cpu", "cuda" or "cuda:N": of the encoder, if it is given by name, and of search and
            decisions in :meth:`route`. An encoder loaded with another device keeps its own.
        cache_dir : path, optional
            Where that encoder keeps embeddings; none are kept by default.
        progress : callable, optional
            Called with (stage, done, total).

        Returns
        -------
        Router

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was found and what was expected.
        NoCudaKernels
            If a CUDA device is asked for and the extension was built without CUDA.

        Notes
        -----
        arXiv 2309.15789: eq. 11 (predictor), 12–13 (distance), 14 (smoother).
        """
        device = _checked(device)
        settings = Settings(
            k=k,
            kappa=kappa,
            sigma=sigma,
            eta=eta,
            threshold=threshold,
            label_shares=tuple(float(share) for share in label_shares),
            draws=draws,
            seed=seed,
        )
        if embeddings is None:
            encoder = _load_encoder(encoder or DEFAULT_ENCODER, device, cache_dir)
            if progress is not None:
                progress("encoding the benchmark", 0, table.n_records)
            embeddings = encoder.encode(table.prompts)
        fitted = fit(
            table,
            embeddings,
            settings,
            fingerprint=_fingerprint(encoder),
            fallback=fallback,
            threads=threads,
            progress=progress,
        )
        return cls(fitted, encoder=encoder, device=device, cache_dir=cache_dir, threads=threads)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the candidate models."""
        return self._fit.models

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the benchmark's datasets."""
        return self._fit.datasets

    @property
    def best_on_average(self) -> str:
        """The best model on average (BMA)."""
        return self.models[self._fit.best_on_average]

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded at first need and checked against the router's fingerprint."""
        with self._lock:
            if self._encoder is None or isinstance(self._encoder, str):
                name = self._encoder
                if name is None:
                    if self._fit.fingerprint is None:
                        raise ValueError(
                            "this router was fitted on given embeddings without an encoder: "
                            "pass embeddings, or load it with encoder=…"
                        )
                    name = self._fit.fingerprint.name
                encoder = _load_encoder(name, self._device, self._cache_dir)
                self.check_encoder(encoder.fingerprint)
                self._encoder = encoder
            return self._encoder

    def check_encoder(self, fingerprint: Fingerprint) -> None:
        """Refuse another encoder than the one the benchmark was embedded with.

        Parameters
        ----------
        fingerprint : Fingerprint
            Of the encoder, or of embeddings from a file.

        Raises
        ------
        ValueError
            Naming every difference.
        """
        if self._fit.fingerprint is None:
            return
        differences = self._fit.fingerprint.difference(fingerprint)
        if differences:
            raise ValueError(
                "the benchmark was embedded by another encoder: " + "; ".join(differences)
            )

    def choose(
        self,
        prompts: Sequence[str] | None = None,
        labels: NDArray[np.floating] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
        score: Score = "auto",
        label_threshold: float = 0.5,
    ) -> TaskDecision:
        """Choose one model for a task.

        Parameters
        ----------
        prompts : sequence of str
            Unlabelled prompts of the task; 50 to 5000 are usual.
        labels : float array, shape (n_labels, n_models), optional
            Scores of the first n_labels prompts, NaN = not run.
        embeddings : float16 or float32 array, shape (n_prompts, dim), optional
            Unit rows, instead of encoding the prompts.
        score : "auto", "s1", "s2" or "s3"
            What to maximise. "auto" is each model's expected accuracy, from its standing, the
            task's neighbourhood and the labels (:mod:`benchrouter.auto`); "s1" to "s3" are the
            scores of arXiv 2309.15789, and the fallback of its eq. 8 belongs to "s3".
        label_threshold : float
            A label above it is correct.

        Returns
        -------
        TaskDecision

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was found and what was expected.
        """
        rows = self._embed(prompts, embeddings)
        return choose_for_task(
            self._fit, self._index, rows, labels, score=score, label_threshold=label_threshold
        )

    def route(
        self,
        prompts: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
        rule: Rule = "mean",
        k: int | None = None,
    ) -> Decisions:
        """Choose a model for every prompt.

        Parameters
        ----------
        prompts : sequence of str
        embeddings : float16 or float32 array, shape (n_prompts, dim), optional
            Unit rows, instead of encoding the prompts.
        rule : "mean", "raw" or "s3"
            "mean": mean raw score of the neighbours, drawn by one pseudo-record towards the
            model's standing. "raw": the plain mean, the paper's rule on MixInstruct (with k=10).
            "s3": ḡ·p̂(u) + (1 − ḡ)(1 − p̂(u)).
        k : int, optional
            Neighbours that vote, instead of the router's.

        Returns
        -------
        Decisions

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was found and what was expected.
        """
        if self._device != "cpu":
            rows_there = self._embed_there(prompts, embeddings)
            return Decisions(self.models, *self._rules_there().decide(rows_there, rule, k))
        rows = self._embed(prompts, embeddings)
        return Decisions(self.models, *self._rules.decide(rows, rule, k))

    def route_stream(
        self,
        batches: Iterable[tuple[Sequence[str] | None, NDArray[np.float32] | None]],
        *,
        rule: Rule = "mean",
        k: int | None = None,
    ) -> Iterator[Decisions]:
        """Route batches as they come, holding one at a time.

        Parameters
        ----------
        batches : iterable of (prompts, embeddings)
            Either may be None.
        rule : "mean", "raw" or "s3"
        k : int, optional

        Yields
        ------
        Decisions
            One for every batch, in order.
        """
        for prompts, embeddings in batches:
            yield self.route(prompts, embeddings=embeddings, rule=rule, k=k)

    def explain(
        self,
        prompt: str | None = None,
        *,
        embedding: NDArray[np.float32] | None = None,
        rule: Rule = "mean",
        k: int | None = None,
    ) -> Explanation:
        """Show the neighbours that voted on a prompt, and every model's predicted score.

        Parameters
        ----------
        prompt : str
        embedding : float16 or float32 array, shape (dim,), optional
            Unit vector, instead of encoding the prompt.
        rule : "mean", "raw" or "s3"
        k : int, optional

        Returns
        -------
        Explanation
        """
        rows = self._embed(
            None if prompt is None else [prompt],
            None if embedding is None else embedding[None],
        )
        return self._rules.explain(prompt, rows, rule, k)

    def save(self, directory: str | Path) -> None:
        """Write the router to a directory, atomically.

        Parameters
        ----------
        directory : path
            Created, or replaced if it holds a router.

        Raises
        ------
        ValueError
            If the directory exists and holds something else.
        """
        artifact.save(self._fit, directory)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        encoder: Encoder | str | None = None,
        device: str = "cpu",
        cache_dir: str | Path | None = None,
        threads: int = 0,
        verify: bool = True,
    ) -> Router:
        """Read a router from a directory; its arrays are memory-mapped.

        Parameters
        ----------
        directory : path
        encoder : Encoder or str, optional
            Where the recorded encoder is to be found (a name or folder), if not under its
            recorded name. Its fingerprint must be the recorded one.
        device : str
            As in :meth:`fit`.
        cache_dir : path, optional
            Where the encoder keeps embeddings.
        threads : int
            0 = all.
        verify : bool
            Compare the SHA-256 of every file with the recorded one.

        Returns
        -------
        Router

        Raises
        ------
        ValueError
            If the directory is not a whole router, naming the file at fault; if this machine has
            no such device.
        NoCudaKernels
            If a CUDA device is asked for and the extension was built without CUDA.
        """
        return cls(
            artifact.load(directory, verify=verify),
            encoder=encoder,
            device=device,
            cache_dir=cache_dir,
            threads=threads,
        )

    def describe(self) -> dict[str, Any]:
        """List what is inside, as plain values.

        Returns
        -------
        dict
        """
        return artifact.describe(self._fit)

    def _embed(
        self, prompts: Sequence[str] | None, embeddings: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        _check_prompts(prompts, embeddings)
        if embeddings is None:
            assert prompts is not None
            return self.encoder.encode(prompts)
        rows = as_unit_rows(embeddings, "embeddings")
        if prompts is not None and len(prompts) != len(rows):
            raise ValueError(f"{len(prompts)} prompts came with {len(rows)} embeddings")
        if rows.shape[1] != self._index.dim:
            raise ValueError(
                f"embeddings have dim {rows.shape[1]}, the router's have dim {self._index.dim}"
            )
        return rows

    def _embed_there(
        self, prompts: Sequence[str] | None, embeddings: NDArray[np.float32] | None
    ) -> Tensor:
        """Embeddings on the device; those that its own encoder makes never leave it."""
        import torch

        _check_prompts(prompts, embeddings)
        if embeddings is None and self.encoder.device == self._device:
            assert prompts is not None
            return self.encoder.encode_tensor(prompts)
        return torch.tensor(self._embed(prompts, embeddings), device=self._device)

    def _rules_there(self) -> RulesOnDevice:
        """The rules on the device; the benchmark is copied there at first need."""
        from benchrouter.rules_on_device import RulesOnDevice

        with self._lock:
            if self._on_device is None:
                self._on_device = RulesOnDevice(self._rules, self._fit, self._device)
            return self._on_device


def _checked(device: str) -> str:
    """Full name of a device, refused unless this machine has it and kernels for it were built."""
    if device == "cpu":
        return device
    from benchrouter.encoder.devices import check_device
    from benchrouter.voting_cuda import check_built

    device = check_device(device)
    check_built()
    return device


def _check_prompts(prompts: object, embeddings: object) -> None:
    if prompts is not None and (isinstance(prompts, str) or not hasattr(prompts, "__len__")):
        found = "a single string" if isinstance(prompts, str) else type(prompts).__name__
        raise TypeError(f"prompts must be a list of strings, got {found}")
    if prompts is None and embeddings is None:
        raise ValueError("prompts or embeddings are needed, got neither")


def _load_encoder(encoder: Encoder | str, device: str, cache_dir: str | Path | None) -> Encoder:
    if not isinstance(encoder, str):
        return encoder
    from benchrouter.encoder import Encoder as Loader

    return Loader.load(encoder, device=device, cache_dir=cache_dir)


def _fingerprint(encoder: Encoder | str | None) -> Fingerprint | None:
    if encoder is None:
        return None
    if not isinstance(encoder, str):
        return encoder.fingerprint
    from benchrouter.encoder import fingerprint_of

    return fingerprint_of(encoder)
