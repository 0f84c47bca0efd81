"""Explain JSON that no format recognises."""

from __future__ import annotations

from pathlib import Path

from benchrouter.tables.formats import every_eval_ever
from benchrouter.tables.formats.helm import helm
from benchrouter.tables.layouts.sidecar import is_sidecar
from benchrouter.tables.sources.open import SUFFIXES


def why_not_json(path: Path) -> str:
    """Say what an existing ``.json`` file is and what was expected; begins with the path."""
    if path.stat().st_size == 0:
        return f"{path} is empty: found 0 bytes"
    why = helm.why_not_file(path) or every_eval_ever.why_not_aggregate(path)
    if why is not None:
        return f"{path}: {why}"
    tables = [path.with_name(path.stem + suffix) for suffix in SUFFIXES]
    table = next((table for table in tables if table.is_file()), None)
    if table is not None and is_sidecar(path):
        return f"{path}: is the sidecar of a table, expected the table, {table}"
    return (
        f"{path}: found JSON of no known format; read from .json are mixinstruct (records with "
        "'instruction' and 'candidates') and lm-eval (samples, which begin with 'doc_id' and "
        "'doc', or results with their samples beside them); tables are .parquet, .csv or .jsonl"
    )
