"""Evaluation harnesses, whose fresh output is read: `make test-slow` installs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 600


def run_harness(name, module, *arguments, folder):
    """Run a module of the harness `name` in a folder, without a network; skip if it is not here."""
    place = Path(sys.prefix, "harnesses", name)
    if not (place / ".installed").is_file():
        pytest.skip(f"no {name} in {place}: make test-slow installs it where it can")
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    own = {"HF_HOME": str(folder / "hf"), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [str(place / "bin" / "python"), "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, **offline, **own},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
