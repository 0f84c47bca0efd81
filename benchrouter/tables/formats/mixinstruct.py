"""MixInstruct of LLM-Blender (arXiv 2306.02561): candidates of several models, each with scores.

A record is ``{id: "<source>/<n>", instruction, input, output, candidates: [{decoding_method, model,
text, scores: {bertscore, bartscore, bleurt, rougeL, bleu, …}}], cmp_results}``, in a JSON array or
JSONL. Its dataset is the source, its sample_id the rest of the id; without a source the dataset is
"mix-instruct", without an id the sample_id is the record's number from 1. ``output`` and
``cmp_results`` are not read.

The prompt is the instruction, and after a line feed the input where there is one.

One metric is read, BERTScore unless told otherwise. All of them measure how alike an answer and
the reference are, not whether it is right: no metric has a threshold here.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import objects
from benchrouter.files.words import shown
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.fields import name_at, text_at
from benchrouter.tables.formats.long_rows import FormatReading, Rows
from benchrouter.tables.formats.paths import bare_name, head
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.sources.columns import BLANK, number

DEFAULT_METRIC = "bertscore"
DATASET = "mix-instruct"
HEAD_BYTES = 1 << 20  # in which the first record says what it is
_BEGINS = re.compile(rb"\s*(\[\s*)?\{")
_KEYS = re.compile(rb'"instruction"\s*:'), re.compile(rb'"candidates"\s*:\s*\[')


def recognises(path: Path) -> bool:
    """Whether a JSON or JSONL file begins with an instruction and candidates."""
    if not (path.is_file() and bare_name(path).lower().endswith((".json", ".jsonl"))):
        return False
    start = head(path, HEAD_BYTES)
    return _BEGINS.match(start) is not None and all(key.search(start) for key in _KEYS)


def read(path: Path, choices: Choices) -> list[FormatReading]:
    """Read one file.

    Parameters
    ----------
    path : Path
        ``.json`` or ``.jsonl``, also with ``.gz`` or ``.zst``.
    choices : Choices
        ``metric`` is a key of the candidates' scores.

    Returns
    -------
    list of FormatReading
        One. A bad record is left out as a whole.

    Raises
    ------
    ValueError
        If no candidate has that metric (unless `only_metric`), or the file is empty or broken.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a directory, expected a file")
    metric = choices.metric or DEFAULT_METRIC
    rows = Rows(str(path))
    metrics: dict[str, None] = {}
    for n, (place, record) in enumerate(objects(path), start=1):
        try:
            if isinstance(record, str):
                raise BadInput(record)
            dataset, sample_id = _key(record, n)
            prompt = _prompt(record)
            scored = [
                _candidate(candidate, at, metric, metrics)
                for at, candidate in enumerate(_candidates(record), start=1)
            ]
        except ValueError as error:
            rows.refuse(place, str(error))
            continue
        for model, score in scored:
            rows.add(
                place,
                model=model,
                dataset=dataset,
                sample_id=sample_id,
                prompt=prompt,
                score=score,
            )
    lacks = bool(metrics) and metric not in metrics
    if lacks and not choices.only_metric:
        raise BadInput(
            f"{path}: found no score {metric!r}; the candidates have "
            f"{', '.join(map(repr, metrics))}"
        )
    if lacks:
        return [FormatReading(rows.source(), Sidecar(str(path)), lacks=tuple(metrics))]
    others = [name for name in metrics if name != metric]
    sidecar = Sidecar(
        path=str(path),
        metric=metric,
        thresholds=dict.fromkeys(rows.datasets, math.nan),
    )
    notes = (f"took the metric {metric!r}; there are also {', '.join(others) or 'none'}",)
    return [FormatReading(rows.source(), sidecar, notes)]


def _key(record: dict[str, Any], n: int) -> tuple[str, str]:
    """Dataset and sample_id of a record."""
    text = name_at(record, "id")
    if text is None:
        return DATASET, str(n)
    source, _, name = text.rpartition("/")
    return (source, name) if source.strip(BLANK) and name.strip(BLANK) else (DATASET, text)


def _prompt(record: dict[str, Any]) -> str:
    texts = [text_at(record, key) for key in ("instruction", "input")]
    parts = [text for text in texts if text is not None and text.strip(BLANK)]
    if not parts:
        raise BadInput("instruction and input are blank, expected text")
    return "\n".join(parts)


def _candidates(record: dict[str, Any]) -> list[Any]:
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        raise BadInput(f"candidates is {shown(candidates)}, expected a list that is not empty")
    return candidates


def _candidate(
    candidate: object, at: int, metric: str, metrics: dict[str, None]
) -> tuple[str, float | None]:
    """Model and score; adds the names of the candidate's metrics to `metrics`."""
    if not isinstance(candidate, dict):
        raise BadInput(f"candidate {at} is {shown(candidate)}, expected a JSON object")
    model, scores = candidate.get("model"), candidate.get("scores")
    if not isinstance(model, str) or not model.strip(BLANK):
        raise BadInput(f"model of candidate {at} is {shown(model)}, expected text")
    if scores is None:
        return model, None
    if not isinstance(scores, dict):
        raise BadInput(f"scores of candidate {at} are {shown(scores)}, expected a JSON object")
    metrics.update(dict.fromkeys(scores))
    try:
        return model, number(scores.get(metric))
    except ValueError as error:
        raise BadInput(f"{metric} of model {model!r} is {error}") from error
