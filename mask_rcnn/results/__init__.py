"""What inference writes."""
