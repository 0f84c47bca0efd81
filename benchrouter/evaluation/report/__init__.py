"""What was measured as tables, figures, one HTML page and JSON."""
