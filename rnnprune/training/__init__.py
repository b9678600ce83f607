"""The training loop. Knows tasks and pruning."""
