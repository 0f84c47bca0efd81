"""Sources: the columns of one Parquet, CSV or JSONL file, or of a table in memory."""
