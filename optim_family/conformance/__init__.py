"""The tests that hold an optimizer to the geometry it declares."""
