"""The measurements as tables, figures, one HTML page and JSON."""
