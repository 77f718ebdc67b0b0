"""The family: one file, one optimizer, reached through the registry only."""
