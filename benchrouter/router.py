"""The router: fit on a benchmark once, then choose a model for a task or route prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchrouter import artifact, scores
from benchrouter.decisions import Decisions, Explanation, Neighbour, TaskDecision
from benchrouter.encoder import DEFAULT_ENCODER, as_unit_rows
from benchrouter.evidence import prior_of
from benchrouter.fit import Fit, Settings, fit
from benchrouter.holdout import DRAWS, LABEL_SHARES
from benchrouter.index import Index
from benchrouter.task import Score, choose_for_task
from benchrouter.voting import Chosen, decide, unpack, votes

if TYPE_CHECKING:
    from benchrouter.encoder import Encoder, Fingerprint
    from benchrouter.table import BenchmarkTable

Rule = Literal["mean", "raw", "s3"]
RULES = ("mean", "raw", "s3")
BLOCK = 16384  # prompts searched and decided at a time: bounds memory, not speed
GRID = 1024  # steps of u over [0, 2] at which p̂ is tabulated for single prompts


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
        self._device = device
        self._cache_dir = cache_dir
        self._lock = threading.Lock()
        self._index = Index(fitted.embeddings, threads=threads, verify=False)
        self._preferred = scores.preference(fitted.cost_usd, fitted.prices, fitted.params_b)
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
            Of the encoder, if it is given by name.
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

        Notes
        -----
        arXiv 2309.15789: eq. 11 (predictor), 12–13 (distance), 14 (smoother).
        """
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
        score: Score = "s3",
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
        score : "s1", "s2" or "s3"
            What to maximise; the fallback of eq. 8 belongs to "s3".
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
        rows = self._embed(prompts, embeddings)
        chosen = Chosen(
            np.empty(len(rows), np.int32),
            np.empty(len(rows), np.float32),
            np.empty(len(rows), np.float32),
            np.empty(len(rows), np.float32),
            np.empty(len(rows), np.bool_),
        )
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            part = Chosen(
                chosen.model[block],
                chosen.score[block],
                chosen.margin[block],
                chosen.distance[block],
                chosen.fallback[block],
            )
            self._decide(rows[block], rule, k, part)
        return Decisions(self.models, *chosen)

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
            None if embedding is None else np.asarray(embedding)[None, :],
        )
        k = self._fit.settings.k if k is None else k
        chosen = self._decide(rows, rule, k)
        model, fallback = int(chosen.model[0]), bool(chosen.fallback[0])
        distance = float(chosen.distance[0])
        neighbours = self._index.search(rows, k)
        predicted, support = self._scores_of_models(neighbours.ids, rule, distance)
        best = int(scores.best_model(predicted, self._preferred))
        if not fallback:
            reason = f"{self.models[model]} has the largest score under the rule {rule!r}"
        elif distance > self._fit.distance_limit:
            reason = (
                f"the prompt's distance {distance:.3f} lies beyond {self._fit.distance_limit:.3f}, "
                "the 99th percentile of the benchmark's own held-out prompts (the largest score "
                f"was {self.models[best]}'s)"
            )
        else:
            reason = "no neighbour of the prompt has a score"
        return Explanation(
            prompt=prompt,
            rule=rule,
            model=self.models[model],
            reason=reason,
            score=float(chosen.score[0]),
            margin=float(chosen.margin[0]),
            distance=distance,
            fallback=fallback,
            models=self.models,
            scores=predicted,
            support=support,
            neighbours=[
                self._neighbour(int(i), float(s))
                for i, s in zip(neighbours.ids[0], neighbours.similarities[0], strict=True)
                if i >= 0
            ],
        )

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
            Of the encoder.
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
            If the directory is not a whole router, naming the file at fault.
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
        if isinstance(prompts, str):
            raise TypeError("prompts must be a list of strings, got a single string")
        if embeddings is None:
            if prompts is None:
                raise ValueError("prompts or embeddings are needed, got neither")
            return self.encoder.encode(prompts)
        rows = as_unit_rows(embeddings, "embeddings")
        if prompts is not None and len(prompts) != len(rows):
            raise ValueError(f"{len(prompts)} prompts came with {len(rows)} embeddings")
        if rows.shape[1] != self._index.dim:
            raise ValueError(
                f"embeddings have dim {rows.shape[1]}, the router's have dim {self._index.dim}"
            )
        return rows

    def _decide(
        self,
        rows: NDArray[np.float32],
        rule: Rule,
        k: int | None,
        out: Chosen | None = None,
    ) -> Chosen:
        settings = self._fit.settings
        k = settings.k if k is None else k
        outcomes, prior, prior_weight = self._voting(rule)
        neighbours = self._index.search(rows, max(k, settings.kappa))
        tabulated = self._p_table if rule == "s3" else None
        return decide(
            neighbours.ids,
            neighbours.similarities,
            outcomes,
            prior=prior,
            preference=self._preferred,
            k=k,
            kappa=settings.kappa,
            rule="s3" if rule == "s3" else "mean",
            prior_weight=prior_weight,
            threshold=settings.threshold,
            p_table=tabulated,
            p_start=0.0,
            p_step=2.0 / GRID,
            distance_limit=self._fit.distance_limit,
            fallback_model=self._fit.fallback,
            threads=self._index.threads,
            out=out,
        )

    def _voting(self, rule: Rule) -> tuple[Any, NDArray[np.float32], float]:
        """Outcomes that vote under a rule, the models' prior, and the weight of that prior."""
        if rule not in RULES:
            raise ValueError(f"rule must be 'mean', 'raw' or 's3', got {rule!r}")
        if rule != "s3":
            return self._fit.raw, self._raw_prior, 1.0 if rule == "mean" else 0.0
        if self._fit.correct is None or len(self._fit.pairs.u) == 0:
            raise ValueError(
                "the rule 's3' needs p̂, and this benchmark gives none: it takes at least two "
                "datasets, each with a correctness threshold; use 'mean' or 'raw'"
            )
        return self._fit.correct, self._prior, 0.0

    @cached_property
    def _raw_prior(self) -> NDArray[np.float32]:
        return prior_of(self._fit.raw_means)

    @cached_property
    def _prior(self) -> NDArray[np.float32]:
        return prior_of(self._fit.means)

    @cached_property
    def _p_table(self) -> NDArray[np.float32]:
        grid = np.linspace(0.0, 2.0, GRID + 1)
        pairs = self._fit.pairs
        p_hat = scores.smooth(grid, pairs.u, pairs.p, self._fit.settings.sigma)
        return np.where(np.isnan(p_hat), 0.5, p_hat).astype(np.float32)

    def _scores_of_models(
        self, ids: NDArray[np.int64], rule: Rule, distance: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        outcomes, prior, prior_weight = self._voting(rule)
        voted = votes(ids, outcomes, prior=prior, prior_weight=prior_weight)
        predicted = voted.votes[0].astype(np.float64)
        if rule == "s3":
            grid = np.linspace(0.0, 2.0, GRID + 1)
            p = np.array([np.interp(distance, grid, column) for column in self._p_table.T])
            g_bar = (predicted > self._fit.settings.threshold).astype(np.float64)
            predicted = scores.s3(g_bar, p)
        return predicted, voted.support[0].astype(np.int64)

    def _neighbour(self, record: int, similarity: float) -> Neighbour:
        row = unpack(self._fit.raw, np.array([record]))[0].tolist()
        return Neighbour(
            dataset=self.datasets[self._fit.dataset[record]],
            sample_id=self._fit.sample_ids[record],
            prompt=self._fit.prompts[record],
            similarity=similarity,
            scores={
                name: None if value != value else value
                for name, value in zip(self.models, row, strict=True)
            },
        )


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
