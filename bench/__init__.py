"""Benchmarks; each is run as `python -m bench.<name>` and prints one JSON line."""
