"""`auto`: expected scores of prompts, and expected accuracies of tasks."""
