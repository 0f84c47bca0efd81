"""Fixtures used by several test files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real benchmark tables beside the checkout; a stranger's clone has none."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real benchmark tables (../shared) are not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def host_module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The device half of the extension, with the host as its device: see helpers/device.py."""
    from device import build_device_on_host

    return build_device_on_host(tmp_path_factory.mktemp("device_on_host"))


def _why_no_gpu() -> str | None:
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "torch finds no CUDA device on this machine"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked gpu, with the reason, where there is no device for them."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = _why_no_gpu() if marked else None
    for item in marked:
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
