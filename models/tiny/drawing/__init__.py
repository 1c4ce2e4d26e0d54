"""Drawn scenes, toys and the demo's subject, and the plain computer vision that judges pictures of them."""
