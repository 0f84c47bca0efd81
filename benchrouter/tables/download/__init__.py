"""Public benchmark results, fetched from where their authors publish them."""
