"""`python -m optim_family` is `optim-family`."""

from optim_family.cli import main

if __name__ == "__main__":
    main()
