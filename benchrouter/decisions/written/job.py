"""Batch jobs: prompts of a file through a router, decisions to a file or to parts that resume."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from benchrouter.decisions.answers import Decisions
from benchrouter.decisions.policy import OF_COSTS, Policy, Rule, policy_of
from benchrouter.decisions.written.manifest import Totals
from benchrouter.decisions.written.parts import FORMATS, PartsOutput
from benchrouter.decisions.written.single import SingleOutput
from benchrouter.decisions.written.source import PromptSource, Reading
from benchrouter.decisions.written.writers import CHANCE, Columns
from benchrouter.embeddings import Fingerprint
from benchrouter.files.arrays import Counts
from benchrouter.prompts import PART_SIZE
from benchrouter.prompts.batches import Counted, PromptBatch
from benchrouter.prompts.read_ahead import treated_beside
from benchrouter.prompts.timing import stage

# What is being done, and a batch for which it is done; None when it begins.
OnBatch = Callable[[str, PromptBatch | None], None]
Routed = tuple[PromptBatch, Decisions | None]  # None for a batch without a prompt
Asked = tuple[list[str] | None, NDArray[Any] | None, Counts | None]


class ChecksEncoder(Protocol):
    """A router that knows its encoder."""

    def check_encoder(self, fingerprint: Fingerprint) -> None:
        """See `Router.check_encoder`."""


class StreamRouter(ChecksEncoder, Protocol):
    """What a job needs of `benchrouter.Router`."""

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """See `Router.identity`."""

    def check_rule(self, *, policy: Policy) -> None:
        """See `Router.check_rule`."""

    def route_stream(self, batches: Iterable[Asked], *, policy: Policy) -> Iterator[Decisions]:
        """See `Router.route_stream`."""

    def find_cost_weight(self, batches: Iterable[Asked], policy: Policy) -> float:
        """See `Router.find_cost_weight`."""


@dataclass(frozen=True)
class Writing:
    """How decisions are written.

    Attributes
    ----------
    keep_prompt : bool
        Whether the prompts are written too.
    prefix : str
        Put before the names of the results, for input that has fields of these names.
    rejected : path, optional
        For a single file: where bad records are listed as JSONL. A directory has its own folder
        ``rejected`` for them.
    part_size : int, optional
        For a directory: records of the input that a part covers, by default 100,000.
    part_format : "parquet" or "jsonl", optional
        For a directory, by default "parquet".
    resume : bool
        For a directory: continue after the last finished part, if there are any.
    """

    keep_prompt: bool = True
    prefix: str = ""
    rejected: str | Path | None = None
    part_size: int | None = None
    part_format: str | None = None
    resume: bool = False


@dataclass(frozen=True)
class Summary:
    """What was routed.

    Attributes
    ----------
    totals : Totals
        Counts of prompts, models, fallbacks and bad records, and expected costs: of all runs.
    n_now : int
        Prompts that this run routed.
    seconds : float
        That this run took for them.
    n_parts : int or None
        None for a single file.
    rejected : Path or None
        File or folder of the bad records; None where none is kept.
    policy : Policy
        As it was given, but for a budget: the cost weight that was found for it stands there.
    """

    totals: Totals
    n_now: int
    seconds: float
    n_parts: int | None
    rejected: Path | None
    policy: Policy


def route_file(
    router: StreamRouter,
    prompts: str | Path,
    output: str | Path,
    *,
    policy: Policy | None = None,
    rule: Rule | None = None,
    k: int | None = None,
    models: Sequence[str] | None = None,
    reading: Reading | None = None,
    writing: Writing | None = None,
    progress: OnBatch | None = None,
) -> Summary:
    """Route every prompt of a file, and write the decisions with the fields of the input.

    Memory does not grow with the number of prompts. Reading, routing and writing overlap.

    Parameters
    ----------
    router : Router
    prompts : str or Path
        ``.txt``, ``.jsonl``, ``.csv`` (these also ``.gz`` or ``.zst``) or ``.parquet``; ``-`` is
        standard input.
    output : str or Path
        A file (``.jsonl``, ``.csv``, also compressed, or ``.parquet``), which appears when it is
        complete. A directory, or a name without a suffix, takes the decisions in parts: each
        appears when it is complete, and `Writing.resume` continues after the last one, whatever
        ended the run. ``-`` writes JSONL to standard output.
    policy, rule, k, models
        As in `Router.route`. A budget is for all prompts, which are read twice then.
    reading : Reading, optional
        Column, format, embeddings, bad records …
    writing : Writing, optional
        Columns, parts, whether to resume …
    progress : callable, optional
        Called with ("route", batch) after each batch is written, with ("find the cost weight",
        batch) where a budget asks for that, and with None for a batch when either begins.

    Raises
    ------
    TypeError, ValueError
        For an option that does not fit the output, a bad record (naming file, line or row), a
        directory that holds something else, or what the router refuses.
    OSError
        If a file cannot be read or written; the parts that are complete stay.

    Examples
    --------
    >>> from benchrouter import Router
    >>> from benchrouter.decisions.written import Reading, Writing, route_file
    >>> router = Router.load("router")  # doctest: +SKIP
    >>> done = route_file(  # doctest: +SKIP
    ...     router,
    ...     "prompts.jsonl",
    ...     "decisions/",
    ...     reading=Reading(on_error="skip"),
    ...     writing=Writing(resume=True),
    ... )
    >>> done.totals.models.most_common(1)  # doctest: +SKIP
    [('gemma-2-9b-it', 61204)]
    """
    policy = policy_of(policy, rule=rule, k=k, models=models)
    with RouteJob(
        *(prompts, output, policy), reading=reading, writing=writing, identity=router.identity
    ) as job:
        if not job.complete:
            job.write(job.route(router, progress), progress)
    return job.summary()


class RouteJob:
    """A job of `route_file`, whose output is checked before a router is loaded.

    To be used in a ``with`` block, which completes the output if it does not fail.

    Parameters
    ----------
    prompts, output, reading, writing
        As in `route_file`.
    policy : Policy
    identity : mapping, optional
        By which a router is recognised when the job is resumed; see `Router.identity`.

    Attributes
    ----------
    source : PromptSource
    first_row : int
        Number of records that earlier runs have done.
    n_parts : int or None
        Number of complete parts; None for a single file.
    part_size : int or None
        Records of the input that a part covers; None for a single file.
    complete : bool
        Whether there is nothing left to do.
    """

    def __init__(
        self,
        prompts: str | Path,
        output: str | Path,
        policy: Policy,
        *,
        reading: Reading | None = None,
        writing: Writing | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self._policy = policy
        reading = reading or Reading()
        self.source = PromptSource(prompts, reading)
        try:
            self._output = self._open(output, reading, writing or Writing(), identity)
        except BaseException:
            self.source.close()
            raise
        self.first_row = self._output.first_row
        self._n_before = self._output.totals.prompts
        self._seconds = 0.0

    def _open(
        self,
        output: str | Path,
        reading: Reading,
        writing: Writing,
        identity: Mapping[str, Any] | None,
    ) -> PartsOutput | SingleOutput:
        policy = self._policy
        chances = CHANCE if policy.rule == "auto" else ()
        columns = Columns(
            prompt_column=reading.prompt_column if writing.keep_prompt else None,
            prefix=writing.prefix,
            further=(*chances, *columns_of(policy)),
        )
        _check(output, writing)
        if not names_directory(output):
            self.part_size = None
            rejected = None if writing.rejected is None else Path(writing.rejected)
            return SingleOutput(output, rejected=rejected, **columns)
        self.part_size = writing.part_size or PART_SIZE
        part_format = writing.part_format or "parquet"
        job = {
            **self.source.marks(),
            **(identity or {}),
            "prompt_column": reading.prompt_column,
            "rule": policy.rule,
            "k": policy.k,
            "models": None if policy.models is None else sorted(set(policy.models)),
            "costs": _text_of(policy),
            "tokens_column": reading.tokens_column,
            "keep_prompt": writing.keep_prompt,
            "prefix": writing.prefix,
            "part_size": self.part_size,
            "output_format": part_format,
        }
        if writing.resume and job["input"]["bytes"] is None:
            raise ValueError(
                f"{job['input']['path']} is no regular file, so that no job on it can be resumed"
            )
        if writing.resume and identity is None:
            raise ValueError(
                "the router was made or updated here, so that no job with it can be resumed: save "
                "and load it"
            )
        return PartsOutput(
            output,
            job=job,
            part_size=self.part_size,
            format=part_format,
            resume=writing.resume,
            **columns,
        )

    @property
    def complete(self) -> bool:  # noqa: D102  see the class
        return self._output.complete

    @property
    def n_parts(self) -> int | None:  # noqa: D102
        return self._output.n_parts

    def route(
        self, router: StreamRouter, progress: OnBatch | None = None
    ) -> Generator[Routed, None, None]:
        """Begin to route what is left to do; a budget is first turned into a cost weight.

        Yields
        ------
        (PromptBatch, Decisions or None)
            All batches in order; None for one without a prompt.
        """
        check_encoder(router, self.source)
        router.check_rule(policy=self._policy)
        self._keep_to_budget(router, progress)
        batches = self.source.batches(self.first_row, self.part_size)
        return _routed(router, batches, self._policy)

    def _keep_to_budget(self, router: StreamRouter, progress: OnBatch | None) -> None:
        policy = self._policy
        if policy.budget_usd is None:
            return
        if self.source.prompts.is_stdin:
            raise ValueError("budget_usd reads the prompts twice, found standard input")
        task = "find the cost weight"
        tell(progress, task, None)

        def read(batches: Iterable[Counted]) -> Iterator[Asked]:
            for batch, rows, tokens in batches:
                if batch.prompts:
                    yield batch.prompts, rows, tokens
                tell(progress, task, batch)

        with closing(self.source.batches(part_size=self.part_size)) as batches:
            found = router.find_cost_weight(read(batches), policy)
        self._policy = replace(policy, budget_usd=None, cost_weight=found)

    def write(self, routed: Generator[Routed, None, None], progress: OnBatch | None = None) -> None:
        """Write all batches, in a thread beside the one that routes.

        Parameters
        ----------
        routed : generator of (PromptBatch, Decisions or None)
            All batches that are left to do, in order; closed at the end.
        progress : callable, optional
            As in `route_file`.
        """

        def write(pair: Routed) -> PromptBatch:
            with stage("write"):
                self._output.write(*pair)
            return pair[0]

        start = time.monotonic()
        tell(progress, "route", None)
        with closing(routed), closing(treated_beside(write, routed, name="write")) as done:
            for batch in done:
                tell(progress, "route", batch)
        self._seconds = time.monotonic() - start

    def summary(self) -> Summary:
        """What was done; final after the ``with`` block."""
        totals = self._output.totals
        return Summary(
            totals=totals,
            n_now=totals.prompts - self._n_before,
            seconds=self._seconds,
            n_parts=self._output.n_parts,
            rejected=self._output.rejected,
            policy=self._policy,
        )

    def __enter__(self) -> RouteJob:
        self._output.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        with closing(self.source):
            self._output.__exit__(*raised)


def names_directory(output: str | Path) -> bool:
    """Whether an output is a directory of parts."""
    text, path = str(output), Path(output)
    return text != "-" and (text.endswith("/") or not path.suffix or path.is_dir())


def _check(output: str | Path, writing: Writing) -> None:
    """Refuse options for an output of another kind."""
    if not names_directory(output):
        if writing.resume or writing.part_size is not None or writing.part_format is not None:
            raise ValueError(
                f"resume, part_size and part_format are for a directory, found {output}"
            )
    elif writing.part_size is not None and writing.part_size < 1:
        raise ValueError(f"part_size is {writing.part_size}, expected at least 1")
    elif writing.rejected is not None:
        raise ValueError("rejected is for a single file: a directory has its own folder of them")
    elif writing.part_format not in (None, *FORMATS):
        raise ValueError(f"part_format is {writing.part_format!r}, expected one of {FORMATS}")


def columns_of(policy: Policy) -> tuple[str, ...]:
    """Attributes of the decisions that are written because costs count."""
    if not policy.counts_costs:
        return ()
    return ("cost_usd",) if policy.max_cost_usd is None else ("cost_usd", "over_limit")


def _routed(
    router: StreamRouter, batches: Generator[Counted, None, None], policy: Policy
) -> Generator[Routed, None, None]:
    waiting: deque[PromptBatch] = deque()

    def feed() -> Iterator[Asked]:
        for batch, rows, tokens in batches:
            waiting.append(batch)
            if len(batch):
                needed = rows is None or policy.counts_costs  # by the tokens, perhaps
                yield batch.prompts if needed else None, rows, tokens

    with closing(batches):
        for decisions in router.route_stream(feed(), policy=policy):
            while not len(waiting[0]):
                yield waiting.popleft(), None
            yield waiting.popleft(), decisions
        while waiting:
            yield waiting.popleft(), None


def _text_of(policy: Policy) -> str | None:
    """How costs count, as text by which a job that is resumed is compared."""
    if not policy.counts_costs:
        return None
    values: dict[str, Any] = {name: getattr(policy, name) for name in OF_COSTS}
    if policy.prices is not None:
        values["prices"] = {name: list(pair) for name, pair in sorted(policy.prices.items())}
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def check_encoder(router: ChecksEncoder, source: PromptSource) -> None:
    """Refuse given embeddings of another encoder than the router's, where theirs is recorded."""
    if source.embeddings is not None and source.embeddings.fingerprint is not None:
        router.check_encoder(source.embeddings.fingerprint)


def tell(progress: OnBatch | None, task: str, batch: PromptBatch | None) -> None:
    """Report progress, if somebody asked for it."""
    if progress is not None:
        progress(task, batch)
