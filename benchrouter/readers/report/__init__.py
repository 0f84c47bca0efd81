"""What was read, in numbers and in words: what a user should know of a table before a fit."""

from benchrouter.readers.report.report import DatasetRow, ModelRow, Report, report
from benchrouter.readers.report.warnings import TableWarning

__all__ = ["DatasetRow", "ModelRow", "Report", "TableWarning", "report"]
