"""Tables in memory as sources: anything that exports Arrow data, and Hugging Face datasets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.errors import BadInput
from benchrouter.files.words import check_distinct
from benchrouter.tables.layouts.names import OURS
from benchrouter.tables.sources.jsonl import mixed_texts
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "table"


def source_in_memory(table: Any, named: Collection[str], texts: Collection[str]) -> Source:
    """Wrap a table in memory as a source.

    Parameters
    ----------
    table : object
        With ``__arrow_c_stream__`` (pandas, polars, pyarrow), a pyarrow dataset or a Hugging Face
        ``Dataset``; none of these libraries but pyarrow is imported.
    named : collection of str
        Columns that the caller named. Levels of a pandas index count as columns if they have such
        a name or one of ours; others are left out.
    texts : collection of str
        Columns that hold our `TEXTS`: there a Hugging Face ``ClassLabel`` is read as its name,
        elsewhere as its number.

    Raises
    ------
    TypeError
        If `table` is no such object, or holds several tables.
    ValueError
        If it has no row, or names a column twice.
    """
    found, not_text = _arrow(table)
    for name, classes in _class_names(table).items():
        if name in texts:
            found = _with_names(found, name, classes)
    labels = _row_labels(found.schema) - {*OURS, *named}
    names = [name for name in found.column_names if name not in labels]
    check_distinct(NAME, names)
    if found.num_rows == 0:
        raise BadInput(f"{NAME} is empty: found no data row")
    columns = {name: _without_views(found.column(name)) for name in names}
    return Source(
        name=NAME,
        stem=NAME,
        columns={name: column.type for name, column in columns.items()},
        load=columns.__getitem__,
        positions=np.arange(found.num_rows, dtype=np.int64),
        n_positions=found.num_rows,
        untyped=frozenset(not_text),
        not_text=not_text,
    )


def _arrow(table: Any) -> tuple[pa.Table, dict[str, NDArray[np.bool_]]]:
    """Return the columns, and for mixed ones a mask of the cells that were not text."""
    import pyarrow as pa

    if isinstance(table, Mapping) and hasattr(table, "with_format"):
        raise TypeError(
            f"table is a {type(table).__name__} of the splits {', '.join(map(repr, table))}: "
            f"give one of them, as in table[{next(iter(table), '')!r}]"
        )
    if hasattr(table, "__arrow_c_stream__"):
        try:
            return pa.table(table), {}
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            if not (hasattr(table, "columns") and hasattr(table, "isna")):
                raise TypeError(f"{NAME} of type {type(table).__name__}: {error}") from error
        return _of_mixed_frame(table)  # of pandas
    if hasattr(table, "to_table"):  # pyarrow.dataset.Dataset
        return table.to_table(), {}
    if hasattr(table, "with_format") and hasattr(table, "__len__"):  # datasets.Dataset
        return table.with_format("arrow")[:], {}
    raise TypeError(
        f"table must be a pyarrow.Table, got {type(table).__name__}; also taken: data frames of "
        "pandas and polars, record batches, readers and datasets of pyarrow, a split of a Hugging "
        "Face dataset (not streamed)"
    )


def _class_names(table: Any) -> dict[str, list[str]]:
    """Names of the classes of a Hugging Face dataset's ``ClassLabel`` columns."""
    features = getattr(table, "features", None)
    if not isinstance(features, Mapping):
        return {}
    return {
        column: list(feature.names)
        for column, feature in features.items()
        if type(feature).__name__ == "ClassLabel" and feature.names is not None
    }


def _with_names(table: pa.Table, column: str, classes: list[str]) -> pa.Table:
    """Replace the numbers of classes by their names; −1 and null become null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = table.column(column)
    known = pc.if_else(pc.greater_equal(numbers, 0), numbers, pa.scalar(None, numbers.type))
    names = pa.array(classes, pa.large_string()).take(known.combine_chunks())
    return table.set_column(table.schema.get_field_index(column), column, names)


def _of_mixed_frame(frame: Any) -> tuple[pa.Table, dict[str, NDArray[np.bool_]]]:
    """Convert a pandas frame with columns of mixed kinds, as JSONL is read."""
    import pyarrow as pa

    check_distinct(NAME, [str(name) for name in frame.columns])
    whole, not_text = frame.copy(deep=False), {}
    for name, column in frame.items():
        try:
            pa.array(column)
        except UnicodeEncodeError as error:
            raise BadInput(f"{NAME}: column {name!r} holds what is no text: {error}") from error
        except (pa.ArrowException, ValueError, OverflowError):
            objects = [
                None if missing else value.item() if isinstance(value, np.generic) else value
                for value, missing in zip(column, column.isna(), strict=True)
            ]
            whole[name], not_text[str(name)] = mixed_texts(objects)
    try:
        return pa.table(whole), not_text
    except (pa.ArrowException, ValueError) as error:
        raise BadInput(f"{NAME}: {error}") from error


def _without_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast polars' string views to a type that more of Arrow's functions accept."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if not (pa.types.is_dictionary(kind) and pa.types.is_string_view(kind.value_type)):
        return column
    chunks = [
        pa.DictionaryArray.from_arrays(c.indices, c.dictionary.cast(pa.large_string()))
        for c in column.chunks
    ]
    return pa.chunked_array(chunks, pa.dictionary(kind.index_type, pa.large_string()))


def _row_labels(schema: pa.Schema) -> set[str]:
    """Columns that were the index of a pandas frame."""
    metadata = schema.pandas_metadata or {}
    return {name for name in metadata.get("index_columns", []) if isinstance(name, str)}
