"""Fixtures used by several test files."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real benchmark tables beside the checkout; a stranger's clone has none."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real benchmark tables (../shared) are not beside this checkout")
    return SHARED
