"""Which weights go and when: schedules, saliency, granularity, masks and the loop-free Pruner. Knows tensors, not files."""
