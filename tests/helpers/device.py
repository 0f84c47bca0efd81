"""The device half of the extension with the host as its device: see cuda_on_host/."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def without_preload() -> dict[str, str]:
    """This process's environment, for a compiler: without the runtime of the sanitizers."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def build_device_on_host(folder: Path) -> ModuleType:
    """Compile bindings and kernels for the host; skips where there is no compiler or pybind11."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    pybind11 = pytest.importorskip("pybind11")
    module = folder / ("device_on_host" + sysconfig.get_config_var("EXT_SUFFIX"))
    headers = (
        ROOT / "tests" / "votes" / "cuda_on_host",
        ROOT / "csrc",
        pybind11.get_include(),
        sysconfig.get_path("include"),
    )
    sanitized = SANITIZERS if os.environ.get("BENCHROUTER_SANITIZED") == "1" else ()
    command = [
        compiler, *FLAGS, *sanitized, *(f"-I{header}" for header in headers),
        str(ROOT / "tests" / "votes" / "cuda_on_host" / "device_on_host.cpp"), "-o", str(module),
    ]  # fmt: skip
    run = subprocess.run(command, env=without_preload(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-5000:]
    spec = importlib.util.spec_from_file_location("device_on_host", module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
