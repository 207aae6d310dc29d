"""One training: its films, its stages, what is done after every epoch, and the folder it goes on from."""
