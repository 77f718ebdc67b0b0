"""One click command in each file. It declares the options and calls the function that does the work."""
