"""What was read, in numbers and in words: what a user should know of a table before a fit."""

from benchrouter.tables.report.report import DatasetRow, ModelRow, Report, report
from benchrouter.tables.report.warnings import TableWarning

__all__ = ["DatasetRow", "ModelRow", "Report", "TableWarning", "report"]
