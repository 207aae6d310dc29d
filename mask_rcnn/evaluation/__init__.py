"""Measures of predicted lungs beside annotated ones, of a film and of a set."""
