"""Route prompts to LLMs with the by-products of benchmarks (arXiv 2309.15789).

    prompts → embeddings → neighbours → votes → scores → decisions

Each name below is loaded when it is first used: importing this package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchrouter.files.version import VERSION

if TYPE_CHECKING:
    from benchrouter.decisions.answers import Decisions, Explanation, TaskDecision
    from benchrouter.decisions.policy import CostPolicy, Policy
    from benchrouter.embeddings import Encoder, EncoderNotFound
    from benchrouter.files.errors import BadInput, BadRouter, BenchrouterError, Unavailable
    from benchrouter.router import Router
    from benchrouter.scores.fitted import Settings
    from benchrouter.tables.read import read_table, table_from_arrow
    from benchrouter.tables.report import table_report
    from benchrouter.tables.table import BenchmarkTable
    from benchrouter.tables.write import write_table

__version__ = VERSION
__all__ = [
    "BadInput",
    "BadRouter",
    "BenchmarkTable",
    "BenchrouterError",
    "CostPolicy",
    "Decisions",
    "Encoder",
    "EncoderNotFound",
    "Explanation",
    "Policy",
    "Router",
    "Settings",
    "TaskDecision",
    "Unavailable",
    "__version__",
    "read_table",
    "table_from_arrow",
    "table_report",
    "write_table",
]

_HOMES = {
    "BadInput": "benchrouter.files.errors",
    "BadRouter": "benchrouter.files.errors",
    "BenchmarkTable": "benchrouter.tables.table",
    "BenchrouterError": "benchrouter.files.errors",
    "CostPolicy": "benchrouter.decisions.policy",
    "Decisions": "benchrouter.decisions.answers",
    "Encoder": "benchrouter.embeddings",
    "EncoderNotFound": "benchrouter.embeddings",
    "Explanation": "benchrouter.decisions.answers",
    "Policy": "benchrouter.decisions.policy",
    "Router": "benchrouter.router",
    "Settings": "benchrouter.scores.fitted",
    "TaskDecision": "benchrouter.decisions.answers",
    "Unavailable": "benchrouter.files.errors",
    "read_table": "benchrouter.tables.read",
    "table_from_arrow": "benchrouter.tables.read",
    "table_report": "benchrouter.tables.report",
    "write_table": "benchrouter.tables.write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'benchrouter' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
