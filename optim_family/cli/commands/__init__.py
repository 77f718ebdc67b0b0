"""One click command a file: it declares the options and calls the work."""
