"""Eigenvalues and eigenvectors of operators."""
