"""Explanations of a model's answers, for any task that has a score and a claim."""
