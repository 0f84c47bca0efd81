"""Lines of text, JSONL and CSV as prompts with their fields, or as bad records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from benchrouter.files.csv_records import CsvRows
from benchrouter.files.errors import BadInput
from benchrouter.prompts.rejected import Rejected, raw_text

Record = tuple[str, dict[str, Any]]  # a prompt, and the other fields


def records_of(
    lines: Iterable[bytes], format: str, *, name: str, prompt_column: str, first_row: int
) -> Iterator[Record | Rejected]:
    """Read the records of a file after the first `first_row`, from all its lines with their ends.

    Parameters
    ----------
    format : "txt", "jsonl" or "csv"
    name : str
        The file, for messages.

    Raises
    ------
    ValueError
        For a CSV file whose header is bad or has no such column.
    """
    if format == "csv":
        return _csv_records(lines, name, prompt_column, first_row)
    return _line_records(lines, name, prompt_column if format == "jsonl" else None, first_row)


def wrong_prompt(prompt: object) -> str | None:
    """What is wrong with a prompt; None if nothing is."""
    if not isinstance(prompt, str):
        found = "null" if prompt is None else f"a prompt of type {type(prompt).__name__}"
        return f"found {found}, expected text"
    if not prompt.strip():
        return "found an empty prompt, expected text"
    return None


def _line_records(
    lines: Iterable[bytes], name: str, prompt_column: str | None, first_row: int
) -> Iterator[Record | Rejected]:
    for row, line in islice(enumerate(lines), first_row, None):
        found = _text(line) if prompt_column is None else _json_record(line, prompt_column)
        if isinstance(found, str):
            yield Rejected(name, row, row + 1, found, raw_text([line]))
        else:
            yield found


def _text(line: bytes) -> Record | str:
    try:
        prompt = line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as e:
        return f"found text that is not UTF-8 ({e.reason}), expected a prompt"
    return wrong_prompt(prompt) or (prompt, {})


def _json_record(line: bytes, prompt_column: str) -> Record | str:
    try:
        # as text: from bytes, json guesses the encoding of every line anew
        record = json.loads(line.decode(), parse_constant=_not_json)
    except UnicodeDecodeError as e:
        return f"found text that is not UTF-8 ({e.reason}), expected a JSON object"
    except (ValueError, RecursionError) as e:
        found = "an empty line" if not line.strip() else f"text that is not JSON ({e})"
        return f"found {found}, expected one JSON object a line"
    if not isinstance(record, dict):
        return f"found a JSON {type(record).__name__}, expected an object"
    if prompt_column not in record:
        return f"found no field {prompt_column!r}, expected a prompt"
    if b"\\u" in line and not _encodable(record):
        return "found half a surrogate pair, expected Unicode text"
    prompt = record.pop(prompt_column)
    return wrong_prompt(prompt) or (prompt, record)


def _not_json(constant: str) -> None:
    raise BadInput(f"{constant} is no JSON number")


def _encodable(record: dict[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_records(
    lines: Iterable[bytes], name: str, prompt_column: str, first_row: int
) -> Iterator[Record | Rejected]:
    rows = CsvRows(lines, name)
    header = rows.header
    if prompt_column not in header:
        raise BadInput(f"{name}, line 1: found columns {header}, expected {prompt_column!r}")
    for row, (line, cells, wrong, raw) in islice(enumerate(rows), first_row, None):
        record: dict[str, Any] = {} if wrong else dict(zip(header, cells, strict=True))
        prompt = record.pop(prompt_column, None)
        wrong = wrong or wrong_prompt(prompt) or ""
        yield Rejected(name, row, line, wrong, raw_text(raw)) if wrong else (prompt, record)
