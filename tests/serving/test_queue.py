"""What the queue gives a device, by what the device is expected to manage."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from benchrouter.serving.pace import Pace
from benchrouter.serving.queue import MOST_TIGHT, Job, Queue

BATCH_S = 0.2  # of 1,000 tokens, as it is learnt


@pytest.fixture
def queue():
    pace = Pace(max_wait_s=0.0, max_batch_tokens=1000, deadline_s=10.0)
    for _ in range(20):
        pace.worked(1000, BATCH_S)
        pace.worked(10, BATCH_S / 100)
    return Queue(100, pace)


def put(queue, left_s, n_tokens=500):
    """Add a prompt that is to be answered in so many seconds."""
    pending = SimpleNamespace(deadline=time.monotonic() + left_s, is_over=False, was_let_in=False)
    job = Job(pending, 0, n_tokens)
    assert queue.put([job])
    return job


def test_prompts_that_will_be_in_time_come_before_those_that_may_be(queue):
    tight = [put(queue, 2.0 * BATCH_S, n_tokens=1000) for _ in range(2)]
    safe = [put(queue, 60.0) for _ in range(2)]
    assert queue.take() == (safe, [])
    assert queue.take() == (tight[:1], [])
    assert queue.take() == (tight[1:], [])


def test_a_batch_is_filled_up_with_prompts_that_may_be_in_time(queue):
    tight, safe = put(queue, 1.2 * BATCH_S), put(queue, 60.0, n_tokens=100)
    assert queue.take() == ([safe, tight], [])


def test_prompts_that_will_not_be_in_time_are_given_up(queue):
    late, safe = put(queue, 0.1 * BATCH_S), put(queue, 60.0)
    assert queue.take() == ([safe], [late])


def test_prompts_that_nobody_waits_for_are_left_out(queue):
    over, safe = put(queue, 60.0), put(queue, 60.0)
    over.pending.is_over = True
    assert queue.take() == ([safe], [])


def test_requests_that_are_over_are_let_go_while_no_device_takes_any(queue):
    for _ in range(500):
        put(queue, 60.0).pending.is_over = True
    assert len(queue) <= 1
    waiting = [put(queue, 60.0) for _ in range(150)]
    assert len(queue) == 150  # of which 100 are in it
    for job in waiting[:100]:
        job.pending.is_over = True
    new = put(queue, 60.0)
    assert len(queue) == 51
    assert queue.take().batch == waiting[100:102]
    assert new.pending.was_let_in


def test_a_long_queue_is_not_searched_to_its_end(queue):
    queue.most = 10_000
    for _ in range(2 * MOST_TIGHT):
        put(queue, 1.2 * BATCH_S)
    safe = put(queue, 60.0)
    assert safe not in queue.take().batch


def test_a_prompt_larger_than_a_batch_is_a_batch(queue):
    large, small = put(queue, 60.0, n_tokens=5000), put(queue, 60.0, n_tokens=1)
    assert queue.take().batch == [large]
    assert queue.take().batch == [small]
