"""Many points of a landscape, at less than a forward pass each."""
