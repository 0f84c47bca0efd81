"""Streams of prompts in, from text, JSONL, CSV and Parquet files."""

GIVEN_BATCH = 8192  # prompts in memory at a time, where their embeddings are given
ENCODED_BATCH = 1024  # some seconds on a CPU, so that progress is seen
PART_SIZE = 100_000  # records of the input that a part of the output covers
