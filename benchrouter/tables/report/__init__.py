"""The report of a table: what was read, and what should be looked at before a fit."""

from benchrouter.tables.report.report import DatasetRow, ModelRow, TableReport, table_report
from benchrouter.tables.report.warnings import TableWarning

__all__ = ["DatasetRow", "ModelRow", "TableReport", "TableWarning", "table_report"]
