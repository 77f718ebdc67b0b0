"""Grids of runs: from a TOML file to finished runs and a report."""
