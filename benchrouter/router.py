"""The router: fit on a benchmark once, then choose a model for a task or route prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Decisions, Explanation, TaskDecision
from benchrouter.decisions.approximation import approximated
from benchrouter.decisions.costs.cost_policy import CostPolicy
from benchrouter.decisions.costs.cost_rules import CostRules, Priced
from benchrouter.decisions.costs.task_costs import task_policy
from benchrouter.decisions.groups import Groups
from benchrouter.decisions.ranking import Ranking, allowed_of, rank
from benchrouter.decisions.rules import Decided, Rule, Rules
from benchrouter.decisions.suggestions import MAX_REGRET, LabelSuggestion, suggest_labels
from benchrouter.decisions.task import Score, check_choice, choose_for_task
from benchrouter.embeddings import DEFAULT_ENCODER, as_unit_rows
from benchrouter.neighbours.index import Index
from benchrouter.prompts.read_ahead import treated_beside
from benchrouter.scores import formulas, saved
from benchrouter.scores.fit import fit
from benchrouter.scores.fitted import Fit, Settings
from benchrouter.scores.pairs import DRAWS, LABEL_SHARES
from benchrouter.scores.updates import table_of
from benchrouter.tables.changes import kept, with_model, with_records

if TYPE_CHECKING:
    from torch import Tensor

    from benchrouter.decisions.on_device import RulesOnDevice
    from benchrouter.embeddings import Encoder, Fingerprint
    from benchrouter.embeddings.encoder import Tokenised
    from benchrouter.tables.table import BenchmarkTable

# Prompts and embeddings, either of which may be None, and the tokens of the prompts if known.
Batch = (
    tuple[Sequence[str] | None, NDArray[np.float32] | None]
    | tuple[Sequence[str] | None, NDArray[np.float32] | None, NDArray[np.integer] | None]
)
# The same, after the name of every prompt's task.
GroupedBatch = (
    tuple[Sequence[Hashable], Sequence[str] | None, NDArray[np.float32] | None]
    | tuple[
        Sequence[Hashable],
        Sequence[str] | None,
        NDArray[np.float32] | None,
        NDArray[np.integer] | None,
    ]
)


class Router:
    """Chooses models by the correctness of benchmark records near a prompt.

    Made by :meth:`fit` or :meth:`load`. All methods may be called from many threads at once; one
    that updates the router does not disturb those that use it.

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
        self._encoder = encoder
        self._device = _checked(device)
        self._on_device: tuple[Rules, RulesOnDevice] | None = None
        self._cache_dir = cache_dir
        self._named_fallback: str | None = None  # by load
        self._lock = threading.Lock()
        self._updating = threading.Lock()
        # All that an update replaces, in one object: a reader takes it once.
        self._state = _state_of(fitted, threads)
        if encoder is not None and not isinstance(encoder, str):
            self.check_encoder(encoder.fingerprint)

    @classmethod
    def fit(
        cls,
        table: BenchmarkTable,
        *,
        encoder: Encoder | str | None = None,
        embeddings: NDArray[np.float32] | None = None,
        k: int = formulas.K_HELM,
        kappa: int = formulas.KAPPA,
        sigma: float = formulas.SIGMA,
        eta: float = formulas.ETA,
        threshold: float = formulas.THRESHOLD,
        label_shares: Sequence[float] = LABEL_SHARES,
        draws: int = DRAWS,
        seed: int = 0,
        fallback: str | None = None,
        index: str | None = None,
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
        index : str, optional
            faiss's name of an approximate index ("IVF1024,Flat", "HNSW32" …) for tables that are
            too large to search exactly. :meth:`describe` tells how near it comes.
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
        ImportError
            If `index` is given and faiss is not installed.
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
        if index is not None:
            fitted = approximated(fitted, index, threads=threads)
        return cls(fitted, encoder=encoder, device=device, cache_dir=cache_dir, threads=threads)

    @property
    def _fit(self) -> Fit:
        return self._state.rules.fit

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
    def revision(self) -> int:
        """How often this object has been updated: 0 when it was made, one more at every update."""
        return self._state.revision

    @property
    def fingerprint(self) -> Fingerprint | None:
        """Of the encoder of the benchmark; None where embeddings were given without one."""
        return self._fit.fingerprint

    @property
    def fallback(self) -> str:
        """The model answered where evidence is too thin."""
        return self.models[self._fit.fallback]

    @property
    def identity(self) -> dict[str, Any] | None:
        """By what a job recognises the router; None unless it is as it was read from a directory.

        The hash of the directory, the fallback if another one than the recorded was asked for, and
        the encoder if none is recorded.
        """
        sha256, encoder = self._fit.sha256, self._encoder
        if sha256 is None:
            return None
        named = encoder if encoder is None or isinstance(encoder, str) else encoder.fingerprint.name
        unrecorded = named if self.fingerprint is None else None
        return {"router": sha256, "encoder": unrecorded, "fallback": self._named_fallback}

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
        label_threshold: float | None = None,
        models: Iterable[str] | None = None,
        policy: CostPolicy | None = None,
        tokens: NDArray[np.integer] | None = None,
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
            task's neighbourhood and the labels (`task_accuracies`); "s1" to "s3" are the
            scores of arXiv 2309.15789, and the fallback of its eq. 8 belongs to "s3".
        label_threshold : float, optional
            A label above it is correct. By default labels must lie in [0, 1], and count as correct
            above 0.5.
        models : iterable of str, optional
            Models that may be chosen, by default all; the evidence tells of all of them. The best
            on average is then that of these.
        policy : CostPolicy, optional
            How cost counts: a model's score on the task, and its expected cost, the mean over the
            prompts, are weighed as those of one prompt are. `budget_usd` is for all prompts of
            the task, and the best model that it affords is chosen; `min_success` takes the
            cheapest model whose expected accuracy exceeds τ.
        tokens : int array, shape (n_prompts,), optional
            Tokens of the prompts, where a policy takes prices × tokens; estimated from the
            prompts by default.

        Returns
        -------
        TaskDecision

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was found and what was expected.
        """
        rows = self._embed(prompts, embeddings)
        rules = self._state.rules
        return choose_for_task(
            rules.fit,
            rules.index,
            rows,
            labels,
            score=score,
            label_threshold=label_threshold,
            asked=task_policy(rules.fit, policy, allowed_of(rules.fit.models, models)),
            prompts=prompts,
            tokens=tokens,
        )

    def suggest_labels(
        self,
        prompts: Sequence[str] | None = None,
        labels: NDArray[np.floating] | None = None,
        *,
        n: int,
        embeddings: NDArray[np.float32] | None = None,
        max_regret: float = MAX_REGRET,
        label_threshold: float | None = None,
        models: Iterable[str] | None = None,
    ) -> LabelSuggestion:
        """Name the prompts and models of a task to grade next, for :meth:`choose`.

        Grade the models on the prompts, hand all labels back, and ask again, until the choice is
        good enough: `reached` says so. Only models that may still be the best are named, and fresh
        prompts each time. docs/quality.md says what that is worth.

        Parameters
        ----------
        prompts : sequence of str
            All prompts of the task.
        labels : float array, shape (n_labels, n_models), optional
            Scores of the first n_labels prompts so far, NaN = not run; rows of NaN are prompts
            without labels.
        n : int
            Prompts to name, at least 1: a seeded random choice among those without labels.
        embeddings : float16 or float32 array, shape (n_prompts, dim), optional
            Unit rows, instead of encoding the prompts.
        max_regret : float
            The choice is good enough once its accuracy lies with 90 % chance at most this far
            below that of the best model.
        label_threshold : float, optional
            As in :meth:`choose`.
        models : iterable of str, optional
            Models that may be chosen, as in :meth:`choose`: only these are named.

        Returns
        -------
        LabelSuggestion

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was found and what was expected.

        Examples
        --------
        >>> asked = router.suggest_labels(prompts, n=5)  # doctest: +SKIP
        >>> asked.prompts, asked.models, round(asked.chance, 2)  # doctest: +SKIP
        (array([ 3, 17, 40, 41, 88]), ('maths-13b', 'general-70b'), 0.61)
        >>> labels = np.full((len(prompts), len(router.models)), np.nan)  # doctest: +SKIP
        >>> for m in asked.models:  # doctest: +SKIP
        ...     labels[asked.prompts, router.models.index(m)] = grade(m, asked.prompts)
        >>> router.suggest_labels(prompts, labels, n=5).reached  # doctest: +SKIP
        True
        """
        rows = self._embed(prompts, embeddings)
        rules = self._state.rules
        return suggest_labels(
            *(rules.fit, rules.index, rows, labels),
            n=n,
            max_regret=max_regret,
            label_threshold=label_threshold,
            allowed=allowed_of(rules.fit.models, models),
        )

    def choose_groups(
        self,
        batches: Iterable[GroupedBatch],
        *,
        score: Score = "auto",
        models: Iterable[str] | None = None,
        policy: CostPolicy | None = None,
    ) -> Iterator[tuple[Hashable, TaskDecision]]:
        """Choose one model for each of many tasks, whose prompts come in any order.

        Every decision is that of :meth:`choose` on the prompts of its task, without labels: those
        must be near their prompts, which are not kept. `n_effective` is therefore an estimate:
        Σc²/n, for n prompts that occur c times each, is known to 9 % (1 sd), and where less than
        1.35 is found the prompts count as all different (35 % of them in equal pairs make 1.35).
        All batches are read at once; memory grows with the tasks (some numbers per task and
        model), not with the prompts.

        Parameters
        ----------
        batches : iterable of (groups, prompts, embeddings) or (groups, prompts, embeddings, tokens)
            Of every prompt the name of its task (hashable; equal names are one task), and the
            prompts, their embeddings, or both, and their tokens, as in :meth:`choose`; what is
            not needed may be None.
        score : "auto", "s1", "s2" or "s3"
            What to maximise, as in :meth:`choose`.
        models : iterable of str, optional
            Models that may be chosen, as in :meth:`choose`.
        policy : CostPolicy, optional
            How cost counts, as in :meth:`choose`, but for a budget: it is for all prompts of all
            tasks together, and one λ serves all tasks, as in :meth:`route`.

        Returns
        -------
        iterator of (hashable, TaskDecision)
            Name and decision of every task, in the order in which the tasks first appeared; each
            is decided when it is asked for.

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was found and what was expected.

        Examples
        --------
        >>> batches = [(["sums", "poems", "sums"], prompts, None)]  # doctest: +SKIP
        >>> {g: task.model for g, task in router.choose_groups(batches)}  # doctest: +SKIP
        {'sums': 'maths-13b', 'poems': 'general-70b'}
        """
        rules = self._state.rules
        check_choice(rules.fit, score)
        asked = task_policy(rules.fit, policy, allowed_of(rules.fit.models, models))
        tasks = Groups(rules.fit, rules.index, asked)
        for groups, prompts, embeddings, *tokens in batches:
            tasks.add(groups, self._embed(prompts, embeddings), prompts, *tokens)
        return tasks.decisions(score)

    def route(
        self,
        prompts: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
        rule: Rule = "auto",
        k: int | None = None,
        policy: CostPolicy | None = None,
        tokens: NDArray[np.integer] | None = None,
        models: Iterable[str] | None = None,
    ) -> Decisions:
        """Choose a model for every prompt.

        Parameters
        ----------
        prompts : sequence of str
        embeddings : float16 or float32 array, shape (n_prompts, dim), optional
            Unit rows, instead of encoding the prompts.
        rule : "auto", "mean", "raw" or "s3"
            "auto": expected score, from the neighbours, their datasets and the embedding, as far
            as held-out records say that each can be trusted (`prompt_scores`); it also
            tells the chance of success. "mean": mean raw score of the neighbours, drawn by one
            pseudo-record towards the model's standing. "raw": the plain mean, the paper's rule on
            MixInstruct (with k=10). "s3": ḡ·p̂(u) + (1 − ḡ)(1 − p̂(u)).
        k : int, optional
            Neighbours that vote by "mean", "raw" and "s3", instead of the router's.
        policy : CostPolicy, optional
            How expected cost counts; without one it decides ties, and by "auto" between models that
            held-out records cannot tell apart.
        tokens : int array, shape (n_prompts,), optional
            Tokens of the prompts, where a policy takes prices × tokens; estimated from the
            prompts by default.
        models : iterable of str, optional
            Models that may be chosen, by default all. Where the fallback model is to be answered
            and is none of them, the one of the best standing is.

        Returns
        -------
        Decisions

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was found and what was expected.
        """
        models = _held(models)
        if policy is None and self._device != "cpu":
            return self._decide_there(self._embed_there(prompts, embeddings), rule, k, models)
        rows = self._embed(prompts, embeddings)
        return self._decide(prompts, rows, rule, k, policy, tokens, models)

    def check_rule(
        self,
        rule: Rule = "auto",
        k: int | None = None,
        policy: CostPolicy | None = None,
        models: Iterable[str] | None = None,
    ) -> None:
        """Refuse what this router's benchmark does not offer, without routing anything.

        Parameters
        ----------
        rule, k, policy, models
            As in :meth:`route`.

        Raises
        ------
        TypeError, ValueError
            As :meth:`route` would.
        """
        state = self._state
        state.rules.check(rule, k)
        allowed = allowed_of(state.rules.fit.models, models)
        if policy is not None:
            state.cost_rules.check(rule, k, policy, allowed)

    def is_calibrated(
        self, rule: Rule = "auto", k: int | None = None, policy: CostPolicy | None = None
    ) -> bool:
        """Tell whether :meth:`route` can begin at once.

        By the rules other than "auto" the first decisions with `min_success` wait until the
        benchmark's records have been predicted from each other: seconds for ten thousands of
        records.

        Parameters
        ----------
        rule, k, policy
            As in :meth:`route`.

        Returns
        -------
        bool

        Raises
        ------
        TypeError, ValueError
            If the rule or k is none, or the benchmark does not offer the rule.
        """
        return policy is None or self._state.cost_rules.is_calibrated(rule, k, policy)

    def rank(
        self,
        prompts: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
        rule: Rule = "auto",
        k: int | None = None,
        policy: CostPolicy | None = None,
        tokens: NDArray[np.integer] | None = None,
        models: Iterable[str] | None = None,
    ) -> Ranking:
        """Decide as :meth:`route` does, and order all models by what would be chosen next.

        Memory grows with prompts × models; on a GPU only the encoder runs there.

        Parameters
        ----------
        prompts, embeddings, rule, k, policy, tokens, models
            As in :meth:`route`; a policy without a budget.

        Returns
        -------
        Ranking
            Its decisions are those of :meth:`route`.

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what was found and what was expected.

        Examples
        --------
        >>> found = router.rank(["What is 7 times 8?"])  # doctest: +SKIP
        >>> [router.models[m] for m in found.order[0]]  # doctest: +SKIP
        ['maths-13b', 'general-70b', 'general-7b']
        """
        rows = self._embed(prompts, embeddings)
        state = self._state
        names = state.rules.fit.models
        allowed = allowed_of(names, models)
        if policy is None:
            decided, scores, order = rank(state.rules, rows, rule, k, allowed)
            return Ranking(_decisions(names, decided), scores, order)
        priced, scores, cost_usd, order = state.cost_rules.rank(
            rows, prompts, rule, k, policy, tokens, allowed
        )
        return Ranking(_decisions(names, priced), scores, order, cost_usd)

    def _decide_there(
        self, rows: Tensor, rule: Rule, k: int | None, models: Sequence[str] | None
    ) -> Decisions:
        there = self._rules_there()
        allowed = None if models is None else allowed_of(there.models, models)
        return _decisions(there.models, there.decide(rows, rule, k, allowed))

    def _decide(
        self,
        prompts: Sequence[str] | None,
        rows: NDArray[np.float32],
        rule: Rule,
        k: int | None,
        policy: CostPolicy | None,
        tokens: NDArray[np.integer] | None,
        models: Sequence[str] | None,
    ) -> Decisions:
        state = self._state
        names = state.rules.fit.models
        allowed = None if models is None else allowed_of(names, models)
        if policy is None:
            return _decisions(names, state.rules.decide(rows, rule, k, allowed))
        priced = state.cost_rules.decide(rows, prompts, rule, k, policy, tokens, allowed)
        return _decisions(names, priced)

    def route_stream(
        self,
        batches: Iterable[Batch],
        *,
        rule: Rule = "auto",
        k: int | None = None,
        policy: CostPolicy | None = None,
        models: Iterable[str] | None = None,
    ) -> Iterator[Decisions]:
        """Route batches as they come, holding one at a time.

        With an encoder or a router on a GPU, it holds a few: the tokens of a batch are made and
        the one before is embedded, each in a thread, while an earlier one is decided on. A CPU is
        busy with each of these alone.

        Parameters
        ----------
        batches : iterable of (prompts, embeddings) or (prompts, embeddings, tokens)
            As in :meth:`route`; any of them may be None. Asked for in the caller's thread,
            whatever the device.
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
        policy : CostPolicy, optional
            Without a budget: its λ must be known first (:meth:`find_cost_weight`).
        models : iterable of str, optional
            Models that may be chosen, as in :meth:`route`.

        Yields
        ------
        Decisions
            One for every batch, in order.

        Raises
        ------
        ValueError
            If the policy has a budget.
        """
        if policy is not None and policy.budget_usd is not None:
            raise ValueError(
                "budget_usd is for all prompts, a stream holds one batch at a time: find the cost "
                "weight first (find_cost_weight), and route by that"
            )
        models = _held(models)
        if policy is None and self._device != "cpu":
            tokenised = treated_beside(self._tokenised, batches, name="tokenise")
            with closing(
                treated_beside(lambda pair: self._embed_there(*pair), tokenised, name="encode")
            ) as embedded:
                for rows_there in embedded:
                    yield self._decide_there(rows_there, rule, k, models)
            return
        with closing(self._embedded(batches)) as parts:
            for prompts, rows, tokens in parts:
                yield self._decide(prompts, rows, rule, k, policy, tokens, models)

    def _embedded(
        self, batches: Iterable[Batch]
    ) -> Generator[
        tuple[Sequence[str] | None, NDArray[np.float32], NDArray[np.integer] | None], None, None
    ]:
        """Embeddings beside the prompts, ahead of the caller where another device makes them."""

        def embed(
            batch: Batch,
        ) -> tuple[Sequence[str] | None, NDArray[np.float32], NDArray[np.integer] | None]:
            prompts, embeddings, tokens = _with_tokens(batch)
            return prompts, self._embed(prompts, embeddings), tokens

        encoder = self._encoder
        by_name = encoder is None or isinstance(encoder, str)
        device = self._device if by_name else cast("Encoder", encoder).device
        if device == "cpu":
            yield from map(embed, batches)
        else:
            yield from treated_beside(embed, batches, name="encode")

    def _tokenised(
        self, batch: Batch
    ) -> tuple[Sequence[str] | Tokenised | None, NDArray[np.float32] | None]:
        """Tokens instead of prompts, where those are what the embeddings are made from."""
        prompts, embeddings, _ = _with_tokens(batch)
        _check_prompts(prompts, embeddings)
        if prompts is None or embeddings is not None or self.encoder.device != self._device:
            return prompts, embeddings
        return self.encoder.tokenise(prompts), None

    def find_cost_weight(
        self,
        batches: Iterable[Batch],
        policy: CostPolicy,
        *,
        rule: Rule = "auto",
        k: int | None = None,
        models: Iterable[str] | None = None,
    ) -> float:
        """Find the λ at which routing all batches keeps to the budget of a policy.

        The first of two passes: :meth:`route_stream` at this `cost_weight` then decides as
        :meth:`route` would decide on all prompts at once. What is held of each prompt meanwhile
        are the numbers of its neighbours that vote and the models' scores: about 8·k + 4·models +
        30 bytes.

        Parameters
        ----------
        batches : iterable of (prompts, embeddings) or (prompts, embeddings, tokens)
            As in :meth:`route`; any of them may be None.
        policy : CostPolicy
            With a budget.
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
        models : iterable of str, optional
            Models that may be chosen, as in :meth:`route`.

        Returns
        -------
        float
            In score per US$; 0 where the budget binds nothing.

        Raises
        ------
        TypeError, ValueError
            As :meth:`route` does, and if the budget is below what the cheapest models cost.
        """
        rows = (
            (prompts, self._embed(prompts, given), tokens)
            for prompts, given, tokens in map(_with_tokens, batches)
        )
        state = self._state
        allowed = allowed_of(state.rules.fit.models, models)
        return state.cost_rules.cost_weight(rows, rule, k, policy, allowed)

    def explain(
        self,
        prompt: str | None = None,
        *,
        embedding: NDArray[np.float32] | None = None,
        rule: Rule = "auto",
        k: int | None = None,
        policy: CostPolicy | None = None,
        tokens: int | None = None,
        models: Iterable[str] | None = None,
    ) -> Explanation:
        """Show the neighbours that voted on a prompt, and every model's predicted score and cost.

        Parameters
        ----------
        prompt : str
        embedding : float16 or float32 array, shape (dim,), optional
            Unit vector, instead of encoding the prompt.
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
        policy : CostPolicy, optional
            How expected cost counts, as in :meth:`route`; without a budget. Without a policy costs
            are told where they are known, and only scores count.
        tokens : int, optional
            Tokens of the prompt, where costs are prices × tokens; estimated by default.
        models : iterable of str, optional
            Models that may be chosen, as in :meth:`route`; the others are shown all the same.

        Returns
        -------
        Explanation

        Raises
        ------
        TypeError, ValueError
            As :meth:`route` does, and if the policy has a budget.
        """
        rows = self._embed(
            None if prompt is None else [prompt],
            None if embedding is None else embedding[None],
        )
        state = self._state
        allowed = allowed_of(state.rules.fit.models, models)
        plain = state.rules.explain(prompt, rows, rule, k, allowed)
        return state.cost_rules.explain(plain, rows, k, policy, tokens, allowed)

    @property
    def table(self) -> BenchmarkTable:
        """The benchmark inside, as a table without log-likelihoods; built anew at each call."""
        return table_of(self._fit)

    def add_records(
        self,
        table: BenchmarkTable,
        embeddings: NDArray[np.float32] | None = None,
        *,
        compact: bool = True,
    ) -> None:
        """Add benchmark records; those there are not encoded again.

        Parameters
        ----------
        table : BenchmarkTable
            Results of some of the router's models on new records; a dataset that the router has
            keeps its metric and threshold.
        embeddings : float16 or float32 array, shape (n_records, dim), optional
            Unit rows of the new records, by the router's encoder; encoded here where absent.
        compact : bool
            Whether to :meth:`compact` at once. Otherwise neighbours, votes, standings, costs and
            the best on average are at once those of all records, while p̂, the distances of
            datasets, the distance limit, what `auto` trusts and the weight of labels under "s3"
            stay those of the last compact. An approximate index is then kept, and the new records
            are searched exactly beside it.

        Raises
        ------
        TypeError, ValueError
            Naming models that the router lacks, records that it has already, or what is wrong with
            the embeddings. The router is then as it was; so it is for all updates.

        Notes
        -----
        Updates take turns. Other threads go on with the router as it was until an update is done,
        and then have all of it. A compact router equals a fresh fit on :attr:`table` to the last
        bit (but for a graph of faiss, which its threads build in any order). Meanwhile the
        embeddings are held up to three times.
        """
        with self._updating:
            whole = with_records(self.table, table)
            if embeddings is None:
                rows = self.encoder.encode(table.prompts)
            else:
                rows = as_unit_rows(table.aligned(embeddings), "embeddings")
            old = self._fit
            if rows.shape[1] != old.embeddings.shape[1]:
                raise ValueError(
                    f"embeddings have dim {rows.shape[1]}, the router's have dim "
                    f"{old.embeddings.shape[1]}"
                )
            self._refit(whole, np.concatenate((old.embeddings, rows)), compact=compact)

    def add_model(self, name: str, results: BenchmarkTable | NDArray[np.floating]) -> None:
        """Add a model with its scores on the router's records.

        Parameters
        ----------
        name : str
        results : BenchmarkTable or float array, shape (n_records,)
            A table with a column of that name, whose (dataset, sample_id) are some of the router's,
            in any order; its costs, parameters and prices of the model are taken too. Or scores in
            the order of :attr:`table`. NaN, and a record that is not there = not run.

        Raises
        ------
        TypeError, ValueError
            If the router has such a model; naming records that it lacks, or has with another
            prompt.
        """
        with self._updating:
            self._refit(with_model(self.table, name, results), self._fit.embeddings)

    def remove(
        self,
        *,
        records: Iterable[tuple[str, str]] = (),
        models: Sequence[str] = (),
        datasets: Sequence[str] = (),
    ) -> None:
        """Remove records, models and whole datasets.

        Parameters
        ----------
        records : iterable of (dataset, sample_id)
        models, datasets : sequence of str

        Raises
        ------
        TypeError, ValueError
            Naming what the router does not have, or what would be left without any score; if a
            model is the fallback that was asked for; if nothing would be left.
        """
        with self._updating:
            old, table = self._fit, self.table
            left, mask = kept(table, records=records, models=models, datasets=datasets)
            fallback = old.models[old.fallback]
            if old.fallback_is_named and fallback not in left:
                raise ValueError(f"{fallback!r} is the router's fallback model and cannot go")
            self._refit(table.rows(mask).select(models=left), old.embeddings[mask])

    def compact(self) -> None:
        """Learn anew what holding out datasets teaches, after :meth:`add_records` without it.

        An approximate index is trained anew as well. Does nothing where nothing was added.
        """
        with self._updating:
            if not self._fit.compact:
                self._refit(self.table, self._fit.embeddings)

    def _refit(
        self, table: BenchmarkTable, rows: NDArray[np.float32], *, compact: bool = True
    ) -> None:
        """Fit the table with rows that are already unit, and take the result in one step."""
        old, threads = self._fit, self._state.rules.index.threads
        fitted = fit(
            replace(table, source_rows=np.arange(len(rows)), n_source_rows=len(rows)),
            rows,
            old.settings,
            fingerprint=old.fingerprint,
            fallback=old.models[old.fallback] if old.fallback_is_named else None,
            threads=threads,
            learnt=None if compact else old,
        )
        if old.approximation is not None:
            fitted = (
                approximated(fitted, old.approximation.factory, threads=threads)
                if compact
                else replace(fitted, approximation=old.approximation)
            )
        self._state = _state_of(fitted, threads, self._state.revision + 1)

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
        saved.save(self._fit, directory)

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
        fallback: str | None = None,
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
        fallback : str, optional
            Model for prompts without evidence, instead of the recorded one.

        Returns
        -------
        Router

        Raises
        ------
        ValueError
            If the directory is not a whole router, naming the file at fault; if the fallback is
            not one of its models, or this machine has no such device.
        NoCudaKernels
            If a CUDA device is asked for and the extension was built without CUDA.
        """
        fitted = saved.load(directory, verify=verify)
        if fallback is not None:
            if fallback not in fitted.models:
                raise ValueError(
                    f"fallback: found {fallback!r}, expected one of {list(fitted.models)}"
                )
            named = fitted.models.index(fallback)
            fitted = replace(fitted, fallback=named, fallback_is_named=True)
        router = cls(
            fitted,
            encoder=encoder,
            device=device,
            cache_dir=cache_dir,
            threads=threads,
        )
        router._named_fallback = fallback
        return router

    def describe(self) -> dict[str, Any]:
        """List what is inside, as plain values.

        Returns
        -------
        dict
        """
        return saved.describe(self._fit)

    def _embed(
        self, prompts: Sequence[str] | None, embeddings: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        _check_prompts(prompts, embeddings)
        if embeddings is None:
            assert prompts is not None
            return self.encoder.encode(prompts)
        rows = as_unit_rows(embeddings, "embeddings", copy=False)
        if prompts is not None and len(prompts) != len(rows):
            raise ValueError(f"{len(prompts)} prompts came with {len(rows)} embeddings")
        dim = self._state.rules.index.dim
        if rows.shape[1] != dim:
            raise ValueError(f"embeddings have dim {rows.shape[1]}, the router's have dim {dim}")
        return rows

    def _embed_there(
        self,
        prompts: Sequence[str] | Tokenised | None,
        embeddings: NDArray[np.float32] | None,
    ) -> Tensor:
        """Embeddings on the device; those that its own encoder makes never leave it."""
        import torch

        from benchrouter.embeddings.encoder import Tokenised

        _check_prompts(prompts, embeddings)
        if embeddings is None and self.encoder.device == self._device:
            assert prompts is not None
            return self.encoder.encode_tensor(prompts)
        assert not isinstance(prompts, Tokenised)
        return torch.tensor(self._embed(prompts, embeddings), device=self._device)

    def _rules_there(self) -> RulesOnDevice:
        """The rules on the device; the benchmark is copied there at first need."""
        from benchrouter.decisions.on_device import RulesOnDevice

        rules = self._state.rules
        with self._lock:
            if self._on_device is None or self._on_device[0] is not rules:
                self._on_device = rules, RulesOnDevice(rules, self._device)
            return self._on_device[1]


def _checked(device: str) -> str:
    """Full name of a device, refused unless this machine has it and kernels for it were built."""
    if device == "cpu":
        return device
    from benchrouter.embeddings.devices import check_device
    from benchrouter.votes.on_device import check_built

    device = check_device(device)
    check_built()
    return device


def _decisions(models: tuple[str, ...], found: Decided | Priced) -> Decisions:
    costs = (found.cost_usd, found.over_limit) if isinstance(found, Priced) else (None, None)
    return Decisions(models, *found.chosen, *costs, *(found.success or ()))


def _held(models: Iterable[str] | None) -> Sequence[str] | None:
    """Names that can be read more than once."""
    return models if models is None or isinstance(models, str) else tuple(models)


def _with_tokens(
    batch: Batch,
) -> tuple[Sequence[str] | None, NDArray[np.float32] | None, NDArray[np.integer] | None]:
    return batch if len(batch) == 3 else (*batch, None)


def _check_prompts(prompts: object, embeddings: object) -> None:
    if prompts is not None and (isinstance(prompts, str) or not hasattr(prompts, "__len__")):
        found = "a single string" if isinstance(prompts, str) else type(prompts).__name__
        raise TypeError(f"prompts must be a list of strings, got {found}")
    if prompts is None and embeddings is None:
        raise ValueError("prompts or embeddings are needed, got neither")


@dataclass(frozen=True)
class _State:
    """One benchmark and what decides on it."""

    rules: Rules
    cost_rules: CostRules
    revision: int


def _state_of(fitted: Fit, threads: int, revision: int = 0) -> _State:
    approximate = None if fitted.approximation is None else fitted.approximation.index
    index = Index(fitted.embeddings, threads=threads, verify=False, approximate=approximate)
    rules = Rules(fitted, index)
    return _State(rules, CostRules(rules), revision)


def _load_encoder(encoder: Encoder | str, device: str, cache_dir: str | Path | None) -> Encoder:
    if not isinstance(encoder, str):
        return encoder
    from benchrouter.embeddings import Encoder as Loader

    return Loader.load(encoder, device=device, cache_dir=cache_dir)


def _fingerprint(encoder: Encoder | str | None) -> Fingerprint | None:
    if encoder is None:
        return None
    if not isinstance(encoder, str):
        return encoder.fingerprint
    from benchrouter.embeddings import fingerprint_of

    return fingerprint_of(encoder)
