"""What tells a failure: the film's and the lungs' own measures."""
