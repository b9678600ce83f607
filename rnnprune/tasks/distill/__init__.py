"""Pruning without labels: the pruned layers learn to reproduce what the dense ones give on unlabelled inputs."""
