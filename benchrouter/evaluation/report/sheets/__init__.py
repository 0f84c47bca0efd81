"""Tables of an evaluation, for the terminal and for the report."""
