"""Turn cells into records: resolve, plan, stages, scoring."""
