"""Shared by all tests: small nets, one thread a process, so that xdist workers do not fight."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
