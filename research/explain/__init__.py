"""Explanations of predictions, for any task with a score and a claim."""
