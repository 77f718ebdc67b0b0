"""The tests, in the subpackages of the package; what they share is in `helpers`."""
