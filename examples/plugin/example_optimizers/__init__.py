"""Optimizers that optim-family finds by its entry points, one file each."""
