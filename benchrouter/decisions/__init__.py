"""Decisions: one model for a prompt, a task or a group, with reasons."""
