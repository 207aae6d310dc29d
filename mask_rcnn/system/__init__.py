"""Files, the terminal, memory and Keras's backend: what every room needs and no film has to do with."""
