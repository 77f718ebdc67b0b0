"""What `make gpu` does on a machine with a CUDA card: tests, benchmarks and a part of the main study."""
