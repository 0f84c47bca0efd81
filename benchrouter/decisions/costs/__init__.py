"""Costs: what an answer costs, and how it weighs against its predicted score."""
