"""The tests, in the rooms of the package; what they share is in `helpers`."""
