"""What inference and training render and write."""
