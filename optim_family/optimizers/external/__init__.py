"""Optimizers of torch and timm, and the geometry that is inferred from their state."""
