"""What the tests of the formats share."""

import pytest
import torch
from torch import nn


@pytest.fixture
def lstm() -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(3, 4, num_layers=2, bidirectional=True)
