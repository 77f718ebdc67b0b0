"""The append-only store of runs, written and read without torch."""
