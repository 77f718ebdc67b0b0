"""What it costs, side by side in one process; never timed in tests."""
