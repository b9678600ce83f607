"""From one sequence of tokens to another: an encoder, a decoder and attention, trained on pairs of texts."""
