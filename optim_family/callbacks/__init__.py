"""Recorders for training loops that belong to a library, one module each; the libraries are extras."""
