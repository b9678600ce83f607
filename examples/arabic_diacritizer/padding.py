"""The checkpoint as it came, on 500 sentences: each alone, as the package runs it, and padded in batches of 25.

    python -m examples.arabic_diacritizer.padding

Neither the LSTM nor the attention of the network knows what is padding, so padded batches cost it accuracy.
"""

from __future__ import annotations

import random
from typing import Any

import torch

from examples.arabic_diacritizer.run import CACHE, EXAMPLES
from rnnprune.tasks.loader import load_task


@torch.no_grad()
def main() -> None:
    example = EXAMPLES["arabic_diacritizer"]
    task: Any = load_task(str(example.spec), CACHE)
    model = task.build_model().eval()
    model.load_state_dict(torch.load(example.checkpoint, map_location="cpu", weights_only=True))
    sentences = random.Random(1).sample([s for split in task.splits.values() for s in split], 500)
    sentences.sort(key=lambda sentence: len(sentence.labels))
    for label, size in (("alone", 1), ("padded", 25)):
        errors = characters = wrong_words = words = 0
        for begin in range(0, len(sentences), size):
            part = sentences[begin : begin + size]
            padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(s.characters) for s in part], batch_first=True)
            for sentence, told in zip(part, model(padded).argmax(dim=-1), strict=True):
                wrong = told[: len(sentence.labels)] != torch.tensor(sentence.labels)
                errors, characters = errors + int(wrong.sum()), characters + len(wrong)
                wrong_words += len({w for w, is_wrong in zip(sentence.word, wrong, strict=True) if is_wrong} - {-1})
                words += len(set(sentence.word) - {-1})
        print(f"{label}: DER {100 * errors / characters:.2f} %, WER {100 * wrong_words / words:.2f} %")


if __name__ == "__main__":
    main()
