"""Benchmark results: tables, and how they are read, merged, reported, changed and written."""
