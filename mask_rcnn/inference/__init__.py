"""A run of the bag over films: which films, what is made of each, what is written, how a stopped run goes on."""
