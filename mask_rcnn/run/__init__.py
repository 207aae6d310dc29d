"""One engine for long runs over many films: lock, journal, resume, read-ahead; a film's error is that film's."""
