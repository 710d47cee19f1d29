"""Published tables as data, the matrices that reproduce them, and comparisons of records with them."""
