"""How products with a batch's matrix are made, checked and chosen."""
