"""Stages of a stream side by side: a thread makes or treats items while the caller uses others.

Each function is a generator with one thread of its own, which starts with the first item and ends
with the generator: at its end, by an error, or by `close`. A caller that may leave early (an error
of its own, Ctrl-C) holds the generator in `contextlib.closing`, which waits for the item that the
thread works on and drops those that it has not begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from benchrouter.prompts.timing import waiting_for

Item = TypeVar("Item")
Result = TypeVar("Result")

DEPTH = 2  # items made ahead: one is ready whenever the caller asks, and memory stays small
_END: Any = object()


def made_ahead(
    items: Iterable[Item], *, name: str, depth: int = DEPTH
) -> Generator[Item, None, None]:
    """Make items in a thread, ahead of the caller.

    Parameters
    ----------
    items : iterable
        Iterated in that thread. A generator is closed at the end.
    name : str
        The stage that the caller waits for.
    depth : int
        Most items made ahead, at least 1.

    Yields
    ------
    object
        The items in order. An error is raised in the place of the item.
    """
    source = iter(items)
    try:
        with _thread() as submit:
            made = deque(submit(next, source, _END) for _ in range(depth))
            while (item := _result(made.popleft(), name)) is not _END:
                made.append(submit(next, source, _END))
                yield item
    finally:
        _close(source)


def treated_beside(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    name: str,
    depth: int = 1,
) -> Generator[Result, None, None]:
    """Treat items in a thread, while the caller's own thread makes the next ones.

    Parameters
    ----------
    work : callable
        Called in that thread, for one item after the other.
    items : iterable
        Iterated in the caller's thread, `depth` items ahead of the results.
    name : str
        The stage that the caller waits for.
    depth : int
        Most results made ahead, at least 1.

    Yields
    ------
    object
        The results in order. An error of `work` or `items` is raised after the results before it;
        after an error of `work`, no further item is treated.
    """
    source = iter(items)
    failure: Exception | None = None
    has_failed = False

    def until_failure(item: Item) -> Result:
        nonlocal has_failed
        if has_failed:
            raise RuntimeError("an item before this one failed")  # which comes to the caller first
        has_failed = True
        result = work(item)
        has_failed = False
        return result

    try:
        with _thread() as submit:
            treated: deque[Future[Result]] = deque()
            while failure is None:
                try:
                    treated.append(submit(until_failure, next(source)))
                except StopIteration:
                    break
                except Exception as e:  # KeyboardInterrupt does not wait
                    failure = e
                if len(treated) > depth:
                    yield _result(treated.popleft(), name)
            while treated:
                yield _result(treated.popleft(), name)
        if failure is not None:
            raise failure
    finally:
        failure = None  # or its traceback would hold itself
        _close(source)


@contextmanager
def _thread() -> Iterator[Callable[..., Future[Any]]]:
    pool = ThreadPoolExecutor(1, thread_name_prefix="benchrouter-ahead")
    try:
        yield pool.submit
    finally:
        pool.shutdown(cancel_futures=True)


def _result(future: Future[Result], name: str) -> Result:
    with waiting_for(name):
        return future.result()


def _close(source: Iterator[Any]) -> None:
    if isinstance(source, Generator):
        source.close()
