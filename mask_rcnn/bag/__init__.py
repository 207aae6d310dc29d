"""Several trained networks, their votes and their agreement."""
