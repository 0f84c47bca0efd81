"""HELM: run folders, and the files of the paper."""
