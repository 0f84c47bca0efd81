"""Files: lines, CSV, JSON, atomic replacement, locks, and the words of their errors."""
