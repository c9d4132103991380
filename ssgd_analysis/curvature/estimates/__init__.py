"""Traces, densities and diagonals of operators, with their errors."""
