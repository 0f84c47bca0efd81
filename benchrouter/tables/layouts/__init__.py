"""Layouts: a source's long or wide columns, by their names, as one part of a table."""
