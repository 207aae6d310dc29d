"""One training: its folder, its stages, and what is done after every epoch."""
