"""Symmetric matrices of a problem, by their products with vectors."""
