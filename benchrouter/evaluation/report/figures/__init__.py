"""Figures of an evaluation (matplotlib), readable at a paper's size."""
