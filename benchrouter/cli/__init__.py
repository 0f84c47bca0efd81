"""The command line: ``benchrouter COMMAND …``."""

from benchrouter.cli.app import app, main

__all__ = ["app", "main"]
