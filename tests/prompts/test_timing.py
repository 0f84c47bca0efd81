"""Stages are measured only within `measuring`, and add up over threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from tiny_encoder import prompts_of, write_bert

from benchrouter.prompts.timing import measuring, stage


def test_seconds_of_every_stage():
    with stage("before"):
        pass
    with measuring() as stages:
        for _ in range(2):
            with stage("one"):
                time.sleep(0.01)
        with pytest.raises(KeyError), stage("fails"):
            raise KeyError
        with pytest.raises(RuntimeError, match="measured already"), measuring():
            pass
    with stage("after"):
        pass
    assert list(stages.seconds) == ["one", "fails"]
    assert 0.02 <= stages.seconds["one"] < 1.0


def test_threads_add_up():
    def work():
        for _ in range(500):
            with stage("work"):
                pass

    with measuring() as stages:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        before = stages.seconds["work"]
        stages.add("work", 1.0)
    assert stages.seconds["work"] == before + 1.0 and before > 0.0


def test_the_encoder_names_its_stages(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    from benchrouter.embeddings import Encoder

    encoder = Encoder.load(write_bert(tmp_path))
    texts = prompts_of([3, 8, 8])
    expected = encoder.encode(texts)
    with measuring() as stages:
        found = encoder.encode(texts)
    np.testing.assert_array_equal(found, expected)
    assert set(stages.seconds) == {"tokenise", "encode"}
