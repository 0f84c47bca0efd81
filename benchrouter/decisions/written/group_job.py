"""One model for every group of the prompts of a file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from benchrouter.decisions.answers import TaskDecision
from benchrouter.decisions.policy import NO_POLICY, Policy, policy_of
from benchrouter.decisions.task import Score
from benchrouter.decisions.written.group_writer import check_column, group_table, open_table
from benchrouter.decisions.written.job import (
    ChecksEncoder,
    OnBatch,
    check_encoder,
    columns_of,
    tell,
)
from benchrouter.decisions.written.manifest import Totals
from benchrouter.decisions.written.source import PromptSource, Reading
from benchrouter.files.arrays import Counts
from benchrouter.prompts.batches import Counted
from benchrouter.prompts.group_column import with_groups
from benchrouter.prompts.rejected import side_file

if TYPE_CHECKING:
    import pyarrow as pa

Asked = tuple[list[Any], list[str] | None, Any, Counts | None]


class GroupRouter(ChecksEncoder, Protocol):
    """What `route_groups` needs of `benchrouter.Router`."""

    def choose_groups(
        self,
        batches: Iterable[Asked],
        *,
        score: Score,
        policy: Policy,
    ) -> Iterator[tuple[Hashable, TaskDecision]]:
        """See `Router.choose_groups`."""


@dataclass(frozen=True)
class GroupSummary:
    """What was chosen.

    Attributes
    ----------
    n_groups : int
    totals : Totals
        Prompts, bad records and expected costs; models, fallbacks and those over the limit are
        counted by group.
    seconds : float
    """

    n_groups: int
    totals: Totals
    seconds: float


def route_groups(
    router: GroupRouter,
    prompts: str | Path,
    output: str | Path,
    column: str,
    *,
    score: Score = "auto",
    policy: Policy | None = None,
    models: Sequence[str] | None = None,
    reading: Reading | None = None,
    prefix: str = "",
    rejected: str | Path | None = None,
    progress: OnBatch | None = None,
) -> GroupSummary:
    """Choose one model for all prompts of equal `column`, and write one row a group.

    Parameters
    ----------
    router : Router
    prompts : str or Path
        As in `route_file`.
    output : str or Path
        ``.jsonl``, ``.csv`` (these also compressed) or ``.parquet``, which appears when it is
        complete; ``-`` writes JSONL to standard output. See `group_table` for its columns.
    column : str
        Field of every record that names its group.
    score, policy, models
        As in `Router.choose_groups`.
    reading : Reading, optional
    prefix : str
        Put before the names of the results.
    rejected : str or Path, optional
        File that lists bad records as JSONL.
    progress : callable, optional
        Called with ("route", batch) for every batch read, and first with ("route", None).

    Raises
    ------
    TypeError, ValueError
        For a column that has the name of a result, a bad record, no prompt at all, or what the
        router refuses.
    OSError
        If a file cannot be read or written.
    """
    with GroupJob(
        *(prompts, output, column),
        reading=reading,
        policy=policy_of(policy, models=models),
        prefix=prefix,
        rejected=rejected,
    ) as job:
        return job.run(router, score, progress)


class GroupJob:
    """A job of `route_groups`, whose output is checked before a router is loaded.

    To be used in a ``with`` block, which completes the output if it does not fail.

    Parameters
    ----------
    prompts, output, column, reading, policy, prefix, rejected
        As in `route_groups`.

    Attributes
    ----------
    source : PromptSource
    """

    def __init__(
        self,
        prompts: str | Path,
        output: str | Path,
        column: str,
        *,
        reading: Reading | None = None,
        policy: Policy = NO_POLICY,
        prefix: str = "",
        rejected: str | Path | None = None,
    ) -> None:
        self._column = column
        self._policy = policy
        self._prefix = prefix
        self._further = columns_of(policy)
        check_column(column, prefix, self._further)
        with ExitStack() as held:
            self._write = held.enter_context(open_table(output))
            side = None if rejected is None else Path(rejected)
            self._reject = held.enter_context(side_file(side))
            self.source = held.enter_context(PromptSource(prompts, reading or Reading()))
            self._held = held.pop_all()

    def run(
        self,
        router: GroupRouter,
        score: Score = "auto",
        progress: OnBatch | None = None,
    ) -> GroupSummary:
        """Choose the models and write them; see `route_groups`."""
        source = self.source
        check_encoder(router, source)
        totals = Totals()
        start = time.monotonic()
        tell(progress, "route", None)
        with closing(source.batches()) as counted:
            batches = self._feed(counted, totals, progress)
            decisions = router.choose_groups(batches, score=score, policy=self._policy)
            table = group_table(self._column, decisions, prefix=self._prefix, further=self._further)
        seconds = time.monotonic() - start
        if table.num_rows == 0:
            raise ValueError(f"{source.name}: found no prompt with a group, expected at least one")
        self._write(table)
        _add(totals, table, self._prefix, self._further)
        return GroupSummary(table.num_rows, totals, seconds)

    def _feed(
        self, counted: Iterable[Counted], totals: Totals, progress: OnBatch | None
    ) -> Iterator[Asked]:
        """Batches with their groups; what is bad is counted and written."""
        source = self.source
        for groups, (batch, rows, tokens) in with_groups(
            counted, self._column, name=source.name, on_error=source.prompts.on_error
        ):
            totals.rejected += len(batch.rejected)
            totals.prompts += len(batch)
            self._reject(batch.rejected)
            if len(batch):
                needed = rows is None or self._policy.counts_costs  # by the tokens, perhaps
                yield groups, batch.prompts if needed else None, rows, tokens
            tell(progress, "route", batch)

    def __enter__(self) -> GroupJob:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, raised, trace)


def _add(totals: Totals, table: pa.Table, prefix: str, further: Sequence[str]) -> None:
    def column(name: str) -> list[Any]:
        return table.column(f"{prefix}{name}").to_pylist()

    totals.models = Counter(column("model"))
    totals.fallbacks = sum(column("fallback"))
    if "cost_usd" in further:
        pairs = zip(column("n_prompts"), column("cost_usd"), strict=True)
        totals.cost_usd = sum(n * cost for n, cost in pairs)
    if "over_limit" in further:
        totals.over_limit = sum(column("over_limit"))
