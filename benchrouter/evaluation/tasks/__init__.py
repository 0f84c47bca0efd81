"""One model for a task: every dataset held out in turn, at every label share and draw."""
