"""What ``benchmark.py`` measures, a subject a module; each measurement runs in a process of its own."""
