"""Scores: S1, S2, S3 and the expected scores of `auto`, and all that a fit learns for them."""
