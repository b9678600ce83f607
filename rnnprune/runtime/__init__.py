"""Sparse modules that stand in for nn.RNN / nn.GRU / nn.LSTM / nn.Linear, and the choice of engine."""
