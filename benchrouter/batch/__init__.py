"""Streams of prompts to streams of decisions: the files that the command line reads and writes."""
