"""What these tests share: small models, and a file of words with the same words backwards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rnnprune.tasks.seq2seq.model import Seq2SeqModel
from rnnprune.tasks.seq2seq.spec import Seq2SeqModelSpec
from rnnprune.tasks.seq2seq.tokens import SPECIAL


@pytest.fixture
def small() -> Callable[..., Seq2SeqModel]:
    """An untrained model of few units over the letters a to d, in eval mode; any size may be told otherwise."""

    def build(**sizes: object) -> Seq2SeqModel:
        letters = (*SPECIAL, *"abcd")
        given = {"hidden": 6, "embedding": 5, "longest": 9, "source_vocabulary": letters, "target_vocabulary": letters}
        model = Seq2SeqModelSpec(**given | sizes).build()  # type: ignore[arg-type]
        assert isinstance(model, Seq2SeqModel)
        return model.eval()

    return build


@pytest.fixture
def backwards(tmp_path: Path) -> Path:
    """800 words of three to six letters, and what they are backwards."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcd"), random.integers(3, 7))) for _ in range(800)]
    path = tmp_path / "backwards.tsv"
    path.write_text("".join(f"{word}\t{word[::-1]}\n" for word in words))
    return path
