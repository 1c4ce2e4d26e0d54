"""Darkroom's trainer: sessions of instance images, and the runs that train on them."""
