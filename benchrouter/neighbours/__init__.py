"""Neighbours: the benchmark records nearest to a prompt, by exact or approximate search."""
