"""From cell to record: resolve, plan, stages, scoring."""
