"""Decisions in files: batch jobs that go on after a kill."""
