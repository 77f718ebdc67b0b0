"""Optimizers of other packages, and the geometry that is inferred from their state."""
