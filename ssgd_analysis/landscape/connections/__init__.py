"""Paths between minima: straight, after permutation, along a trained curve; and their barriers."""
