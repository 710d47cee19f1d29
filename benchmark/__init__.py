"""The harness: contracts, data, plan, store, runners, records and reports."""
