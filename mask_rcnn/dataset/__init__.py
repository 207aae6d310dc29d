"""From annotated films to the batches that a network learns from."""
