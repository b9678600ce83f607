"""The tasks `tag` and `classify`: sequences of tokens or frames to a label for every step, or one for the whole."""
