"""Runs the store and the services of one machine as child processes (`darkroom up`)."""
