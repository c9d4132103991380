"""What may be permuted, scaled or folded in a network without changing its function."""
