"""The command line, called in this process."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from benchrouter.cli import app


def write(table, path):
    columns = {
        "dataset": [table.datasets[code] for code in table.dataset],
        "sample_id": table.sample_ids,
        "prompt": table.prompts,
        **{name: table.scores[:, m] for m, name in enumerate(table.models)},
    }
    pq.write_table(pa.table(columns), path)
    return path


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])
