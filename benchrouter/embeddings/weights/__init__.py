"""Weights: the files of an encoder, found and described."""
