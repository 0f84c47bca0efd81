"""lm-evaluation-harness: folders and files of samples."""
