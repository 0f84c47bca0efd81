"""Votes: how often each model was correct on a prompt's neighbours."""
