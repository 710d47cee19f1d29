"""Analysis of records: aggregation over seeds, flags, rankings."""
