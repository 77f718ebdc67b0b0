"""`python -m benchmarks [NAME …]`: run all benchmarks, or those named, and print a table for each."""

import importlib
import platform
import sys

import torch

NAMES = (
    *("step", "product", "memory", "startup", "reading", "reading_cifar", "reading_by_size"),
    *("reading_in_study", "accuracy", "sampled", "sample_size", "sampled_figure", "world", "report"),
)


def main(names: list[str]) -> None:
    """Run the named benchmarks; each module prints its own table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    for name in names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n{module.__doc__.splitlines()[0]}")
        module.main()


if __name__ == "__main__":
    main(sys.argv[1:])
