"""Networks: model cards, their construction and adaptation, and the test of scale invariance."""
