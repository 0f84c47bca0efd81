"""Streams of prompts to streams of decisions: the files that the command line reads and writes."""

PART_SIZE = 100_000  # records of the input that a part of the output covers
