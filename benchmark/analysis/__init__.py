"""What numbers say: aggregation, flags, ranking."""
