"""The suite of the native code once more, against a build with ASan and UBSan."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def missing_tools():
    """What the sanitized build needs and this machine lacks."""
    if not sys.platform.startswith("linux"):
        return "the sanitizer's runtime is preloaded the way Linux does it"
    lacking = [tool for tool in ("bash", "cmake", "g++") if shutil.which(tool) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True)
    return None if Path(found.stdout.strip()).is_absolute() else "g++ has no libasan.so"


@pytest.mark.slow
def test_native_code_passes_under_the_sanitizers():
    reason = missing_tools()
    if reason:
        pytest.skip(reason)
    run = subprocess.run(
        ["bash", str(ROOT / "tests" / "votes" / "run_sanitized.sh")],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-5000:]
    assert "planted overrun: reported" in run.stdout
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None and int(passed[1]) > 300, output[-2000:]
    assert "failed" not in run.stdout
