"""The router: fit on a benchmark once, then choose a model for a task or route prompts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Decisions, Explanation, TaskDecision
from benchrouter.decisions.backend import full_name
from benchrouter.decisions.groups import Groups
from benchrouter.decisions.plan import allowed_of
from benchrouter.decisions.policy import Policy, Rule, policy_of
from benchrouter.decisions.ranking import Ranking
from benchrouter.decisions.streams import Batch, GroupedBatch, embedded, with_tokens
from benchrouter.decisions.suggestions import MAX_REGRET, LabelSuggestion, suggest_labels
from benchrouter.decisions.task import Score, check_choice, choose_for_task
from benchrouter.decisions.updatable import Updatable
from benchrouter.embeddings import Encoder, Fingerprint
from benchrouter.embeddings.of_prompts import embed_benchmark
from benchrouter.files.arrays import Progress
from benchrouter.scores import saved
from benchrouter.scores.fit import fit
from benchrouter.scores.fitted import Settings
from benchrouter.tables.table import BenchmarkTable


class Router(Updatable):
    """Chooses models by the correctness of benchmark records near a prompt.

    Made by :meth:`fit` or :meth:`load`. All methods may be called from many threads at once; one
    that updates the router does not disturb those that use it. They raise TypeError or ValueError
    that name the argument, what was found and what was expected.

    Methods that decide take a `policy`, which says how models are chosen (`Policy`; none is the
    empty one). `rule`, `k` and `models` stand for its fields of these names, and replace them.

    Examples
    --------
    >>> router = Router.fit(table, encoder="minilm")  # doctest: +SKIP
    >>> router.route(["What is 7 times 8?"]).names()  # doctest: +SKIP
    ['gemma-2-9b-it']
    """

    @classmethod
    def fit(
        cls,
        table: BenchmarkTable,
        *,
        settings: Settings = Settings(),  # noqa: B008 - it cannot change
        encoder: Encoder | Fingerprint | str | None = None,
        embeddings: NDArray[np.floating] | None = None,
        device: str = "cpu",
        cache_dir: str | Path | None = None,
        threads: int = 0,
        progress: Progress | None = None,
    ) -> Router:
        """Fit a router on benchmark results, as arXiv 2309.15789, eq. 11 to 14.

        Parameters
        ----------
        table : BenchmarkTable
            Records × models.
        settings : Settings
            Numbers of the method, fallback model and approximate index.
        encoder : Encoder or str, optional
            What turns prompts into embeddings: a loaded encoder, or the name of one (loaded only
            when a prompt must be encoded). By default all-mpnet-base-v2; where embeddings are
            given, unknown. For given embeddings also the Fingerprint of what made them.
        embeddings : float16 or float32 array, shape (n_records, dim), optional
            Unit rows of the records, by the same encoder; encoded here where absent.
        device : str
            "cpu", "cuda" or "cuda:N": of the encoder, if it is given by name, and of search and
            decisions on prompts. An encoder loaded with another device keeps its own.
        cache_dir : path, optional
            Where that encoder keeps embeddings; none are kept by default.
        threads : int
            0 = all.
        progress : callable, optional
            Called with (stage, done, total).

        Returns
        -------
        Router

        Raises
        ------
        ImportError
            If an approximate index is asked for and faiss is not installed.
        NoCudaKernels
            If a CUDA device is asked for and the extension was built without CUDA.
        """
        device = full_name(device)
        rows, fingerprint, made_by = embed_benchmark(
            *(table.prompts, encoder, embeddings),
            device=device,
            cache_dir=cache_dir,
            progress=progress,
        )
        fitted = fit(
            *(table, rows, settings), fingerprint=fingerprint, threads=threads, progress=progress
        )
        return cls(fitted, encoder=made_by, device=device, cache_dir=cache_dir, threads=threads)

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
        encoder : Encoder or str, optional
            Where the recorded encoder is to be found (a name or folder), if not under its
            recorded name. Its fingerprint must be the recorded one.
        device, cache_dir, threads
            As in :meth:`fit`.
        verify : bool
            Compare every file's SHA-256.
        fallback : str, optional
            Model for prompts without evidence, instead of the recorded one.

        Returns
        -------
        Router

        Raises
        ------
        ValueError
            If the directory is not a whole router, naming the file at fault.
        """
        fitted = saved.load(directory, verify=verify)
        if fallback is not None:
            if fallback not in fitted.models:
                models = list(fitted.models)
                raise ValueError(f"fallback: found {fallback!r}, expected one of {models}")
            fitted = replace(fitted, settings=replace(fitted.settings, fallback=fallback))
        router = cls(fitted, encoder=encoder, device=device, cache_dir=cache_dir, threads=threads)
        router._loaded_fallback = fallback
        return router

    def save(self, directory: str | Path) -> None:
        """Write the router to a directory, which is replaced whole if it holds a router."""
        saved.save(self._fit, directory)

    def describe(self) -> dict[str, Any]:
        """List what is inside, as plain values."""
        return saved.describe(self._fit)

    # --- one model for a task --------------------------------------------------------------------

    def choose(
        self,
        prompts: Sequence[str] | None = None,
        labels: NDArray[np.floating] | None = None,
        *,
        embeddings: NDArray[np.floating] | None = None,
        score: Score = "auto",
        label_threshold: float | None = None,
        models: Iterable[str] | None = None,
        policy: Policy | None = None,
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
            task's neighbourhood and the labels; "s1" to "s3" are the scores of arXiv 2309.15789,
            and the fallback of its eq. 8 belongs to "s3".
        label_threshold : float, optional
            A label above it is correct. By default labels must lie in [0, 1], and count as correct
            above 0.5.
        models, policy : optional
            Models that may be chosen, and how the expected cost of the mean prompt counts; the
            policy's rule and k are for prompts. The evidence tells of all models, the best on
            average is that of those allowed. A budget is for all prompts of the task.
        tokens : int array, shape (n_prompts,), optional
            Tokens of the prompts, where costs are prices × tokens; estimated by default.

        Returns
        -------
        TaskDecision
        """
        decider, policy = self._state.decider, policy_of(policy, models=models)
        return choose_for_task(
            *(decider.fit, decider.index, self._embedder.on_host(prompts, embeddings), labels),
            score=score,
            label_threshold=label_threshold,
            policy=policy,
            prompts=prompts,
            tokens=tokens,
        )

    def suggest_labels(
        self,
        prompts: Sequence[str] | None = None,
        labels: NDArray[np.floating] | None = None,
        *,
        n: int,
        embeddings: NDArray[np.floating] | None = None,
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
        prompts, labels, embeddings, label_threshold, models
            As in :meth:`choose`; rows of NaN in `labels` are prompts without labels.
        n : int
            Prompts to name, at least 1: a seeded random choice among those without labels.
        max_regret : float
            The choice is good enough once its accuracy lies with 90 % chance at most this far
            below that of the best model.

        Returns
        -------
        LabelSuggestion

        Examples
        --------
        >>> asked = router.suggest_labels(prompts, n=5)  # doctest: +SKIP
        >>> asked.prompts, asked.models, round(asked.chance, 2)  # doctest: +SKIP
        (array([ 3, 17, 40, 41, 88]), ('maths-13b', 'general-70b'), 0.61)
        """
        decider = self._state.decider
        return suggest_labels(
            *(decider.fit, decider.index, self._embedder.on_host(prompts, embeddings), labels),
            n=n,
            max_regret=max_regret,
            label_threshold=label_threshold,
            allowed=allowed_of(decider.fit.models, policy_of(models=models).models),
        )

    def choose_groups(
        self,
        batches: Iterable[GroupedBatch],
        *,
        score: Score = "auto",
        models: Iterable[str] | None = None,
        policy: Policy | None = None,
    ) -> Iterator[tuple[Hashable, TaskDecision]]:
        """Choose one model for each of many tasks, whose prompts come in any order.

        Every decision is that of :meth:`choose` on the prompts of its task, without labels: those
        must be near their prompts, which are not kept. `n_effective` is therefore an estimate:
        Σc²/n, for n prompts that occur c times each, is known to 9 % (1 sd), and where less than
        1.35 is found the prompts count as all different (35 % of them in equal pairs make 1.35).
        All batches are read at once; memory grows with tasks × models, not with the prompts.

        Parameters
        ----------
        batches : iterable of (groups, prompts, embeddings) or (groups, prompts, embeddings, tokens)
            Of every prompt the name of its task (hashable; equal names are one task), and the
            rest as in :meth:`choose`; what is not needed may be None.
        score, models, policy
            As in :meth:`choose`, but for a budget: it is for all prompts of all tasks together,
            and one λ serves all tasks.

        Returns
        -------
        iterator of (hashable, TaskDecision)
            Name and decision of every task, in the order in which the tasks first appeared; each
            is decided when it is asked for.
        """
        decider = self._state.decider
        check_choice(decider.fit, score)
        tasks = Groups(decider.fit, decider.index, policy_of(policy, models=models))
        for groups, prompts, embeddings, *tokens in batches:
            tasks.add(groups, self._embedder.on_host(prompts, embeddings), prompts, *tokens)
        return tasks.decisions(score)

    # --- a model for every prompt ----------------------------------------------------------------

    def route(
        self,
        prompts: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.floating] | None = None,
        policy: Policy | None = None,
        rule: Rule | None = None,
        k: int | None = None,
        models: Iterable[str] | None = None,
        tokens: NDArray[np.integer] | None = None,
    ) -> Decisions:
        """Choose a model for every prompt.

        Parameters
        ----------
        prompts : sequence of str
        embeddings : float16 or float32 array, shape (n_prompts, dim), optional
            Unit rows, instead of encoding the prompts.
        policy, rule, k, models : optional
            How models are chosen: `Policy` says what each means.
        tokens : int array, shape (n_prompts,), optional
            Tokens of the prompts, where costs are prices × tokens; estimated by default.

        Returns
        -------
        Decisions
        """
        policy = policy_of(policy, rule=rule, k=k, models=models)
        rows = self._embedder.rows(prompts, embeddings)
        return self._state.decider.decide(rows, policy, prompts, tokens)

    def rank(
        self,
        prompts: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.floating] | None = None,
        policy: Policy | None = None,
        rule: Rule | None = None,
        k: int | None = None,
        models: Iterable[str] | None = None,
        tokens: NDArray[np.integer] | None = None,
    ) -> Ranking:
        """Decide as :meth:`route` does, and order all models by what would be chosen next.

        Takes what :meth:`route` takes, but for a budget. Memory grows with prompts × models.
        """
        policy = policy_of(policy, rule=rule, k=k, models=models)
        rows = self._embedder.rows(prompts, embeddings)
        return self._state.decider.rank(rows, policy, prompts, tokens)

    def explain(
        self,
        prompt: str | None = None,
        *,
        embedding: NDArray[np.floating] | None = None,
        policy: Policy | None = None,
        rule: Rule | None = None,
        k: int | None = None,
        models: Iterable[str] | None = None,
        tokens: int | None = None,
    ) -> Explanation:
        """Show the neighbours that voted on a prompt, and every model's predicted score and cost.

        Parameters
        ----------
        prompt : str
        embedding : float16 or float32 array, shape (dim,), optional
            Unit vector, instead of encoding the prompt.
        policy, rule, k, models, tokens
            As in :meth:`rank`. Models that may not be chosen are shown all the same, and costs
            are told where they are known even if they do not count.
        """
        policy = policy_of(policy, rule=rule, k=k, models=models)
        row = self._embedder.rows(
            None if prompt is None else [prompt], None if embedding is None else embedding[None]
        )
        return self._state.decider.explain(row, policy, prompt, tokens)

    def route_stream(
        self,
        batches: Iterable[Batch],
        *,
        policy: Policy | None = None,
        rule: Rule | None = None,
        k: int | None = None,
        models: Iterable[str] | None = None,
    ) -> Iterator[Decisions]:
        """Route batches as they come, holding one at a time.

        With an encoder or a router on a GPU, it holds a few: the tokens of a batch are made and
        the one before is embedded, each in a thread, while an earlier one is decided on. A CPU is
        busy with each of these alone.

        Parameters
        ----------
        batches : iterable of (prompts, embeddings) or (prompts, embeddings, tokens)
            As in :meth:`route`; any of them may be None. Asked for in the caller's thread.
        policy, rule, k, models
            As in :meth:`route`; a budget's λ must be known first (:meth:`find_cost_weight`).
        """
        policy = policy_of(policy, rule=rule, k=k, models=models)
        policy.refuse_budget("and a stream holds one batch at a time")
        with closing(embedded(self._embedder, batches)) as parts:
            for prompts, rows, tokens in parts:
                yield self._state.decider.decide(rows, policy, prompts, tokens)

    def find_cost_weight(
        self,
        batches: Iterable[Batch],
        policy: Policy,
        *,
        rule: Rule | None = None,
        k: int | None = None,
        models: Iterable[str] | None = None,
    ) -> float:
        """Find the λ at which routing all batches keeps to the budget of a policy.

        The first of two passes: :meth:`route_stream` at this `cost_weight` then decides as
        :meth:`route` would on all prompts at once. Each prompt takes about 8·k + 4·models + 30
        bytes meanwhile.

        Returns
        -------
        float
            In score per US$; 0 where the budget binds nothing.
        """
        policy = policy_of(policy, rule=rule, k=k, models=models)
        whole = map(with_tokens, batches)
        rows = ((p, self._embedder.rows(p, given), tokens) for p, given, tokens in whole)
        return self._state.decider.cost_weight(rows, policy)

    def check_rule(
        self,
        rule: Rule | None = None,
        k: int | None = None,
        policy: Policy | None = None,
        models: Iterable[str] | None = None,
    ) -> None:
        """Raise as :meth:`route` would for what this benchmark does not offer, routing nothing."""
        self._state.decider.check(policy_of(policy, rule=rule, k=k, models=models))

    def is_calibrated(
        self, rule: Rule | None = None, k: int | None = None, policy: Policy | None = None
    ) -> bool:
        """Tell whether :meth:`route` can begin at once.

        By other rules than "auto" the first decisions with `min_success` wait for seconds, in
        which ten thousands of records are predicted from each other.
        """
        return self._state.decider.is_calibrated(policy_of(policy, rule=rule, k=k))
