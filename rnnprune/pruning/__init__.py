"""Which weights go and when: schedules, saliency, masks and the loop-free Pruner. Knows tensors, not files."""
