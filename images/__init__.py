"""Builds Darkroom's container images with whatever engine the machine has. Needs nothing but Python."""
