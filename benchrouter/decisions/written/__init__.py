"""Decisions in files: batch jobs that resume after a kill.

`route_file` routes every prompt of a file, `route_groups` chooses one model for each group of its
prompts; `benchrouter route` calls them.
"""

from benchrouter.decisions.written.group_job import GroupJob, GroupSummary, route_groups
from benchrouter.decisions.written.job import RouteJob, Summary, Writing, route_file
from benchrouter.decisions.written.source import PromptSource, Reading

__all__ = [
    "GroupJob",
    "GroupSummary",
    "PromptSource",
    "Reading",
    "RouteJob",
    "Summary",
    "Writing",
    "route_file",
    "route_groups",
]
