"""The least that lm-eval and Every Eval Ever write: a row of each, and what names files."""

from __future__ import annotations

DATE = "2026-02-02T03-04-05.000006"
UUID = "0f9c1b7e-3d52-4f6a-9a41-5a1f6f0f5e11"

SAMPLE = {
    "doc_id": 0,
    "doc": {"question": "q?"},
    "arguments": {"gen_args_0": {"arg_0": "q?"}},
    "filter": "none",
    "acc": 1,
}
RECORD = {
    "schema_version": "0.2.2",
    "model_id": "m",
    "evaluation_name": "e",
    "sample_id": "s",
    "input": {"raw": "q?"},
    "evaluation": {"score": 1.0},
}
