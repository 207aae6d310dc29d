"""Checks of a result without annotations: measures of the film and of its lungs, and their thresholds."""
