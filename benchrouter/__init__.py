"""Route prompts to LLMs with the by-products of benchmarks (arXiv 2309.15789)."""

__version__ = "0.1.0"
