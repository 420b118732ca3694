"""How good a model is, and whether a difference is real."""
