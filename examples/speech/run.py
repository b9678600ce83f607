"""Telephone prompts, recognised letter by letter: from nothing to the figures of docs/results/speech.md.

python -m examples.speech.run en        # or it; with --speed, one prompt is timed dense and sparse

Real speech, one voice a language. Texts are brought to lower case, without punctuation and accents, single digits spelt
out; prompts that are no speech (tones, silence), texts that do not say what is spoken, and prompts of over 15 seconds
are left out and counted.
"""

from __future__ import annotations

import gzip
import re
import statistics
import unicodedata
import wave
from functools import partial
from pathlib import Path
from typing import Any

import torch

from examples import packages
from examples.compare import Requests
from examples.whole_path import Example, main
from rnnprune.tasks.ctc.decode import greedy

CACHE = Path(".cache/speech")
LONGEST = 15.0  # seconds; a handful of prompts is longer
FASTEST = 25.0  # characters a second; nobody speaks faster, so the text is not what is spoken
DIGITS = {
    "en": "zero one two three four five six seven eight nine",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
}


def spoken(text: str, digits: str) -> str | None:
    """The text as it is spoken, in plain lower-case letters; None where it does not say that."""
    text = text.strip()
    if (
        text.startswith(("[", "<", "(", "un suono beep"))
        or "\ufffd" in text
        or re.search(r"\w\?\w| \?|\? ?[a-z]", text)
    ):
        return None  # a tone or silence, or letters that were lost: "Il tempo sar? esattamente"
    text = re.sub(r"[\[(<].*?[\])>]", " ", text)  # remarks about the recording
    text = re.sub(r"(?<![\w.,])(\d)(?![\w]|[.,]\d)", lambda match: f" {digits.split()[int(match[1])]} ", text)
    text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))
    text = re.sub(r"['\u2018\u2019`]", "'", text)
    text = " ".join(re.sub(r"[^\w']+|_", " ", text).split())
    return text if re.fullmatch(r"[a-z' ]*[a-z][a-z' ]*", text) else None


def seconds(recording: Path) -> float:
    with wave.open(str(recording)) as file:
        return file.getnframes() / file.getframerate()


def is_plausible(words: str, seconds: float) -> bool:
    return seconds <= LONGEST and len(words) <= FASTEST * seconds


def prepare(language: str) -> None:
    """The manifest of one language; says how many prompts it holds, and how many were left out."""
    manifest = CACHE / f"{language}.tsv"
    if manifest.exists():
        return
    texts, sounds = packages.prompts(language, CACHE)
    lines, left_out = [], 0
    for line in gzip.decompress(texts.read_bytes()).decode("utf-8-sig").splitlines():
        key, colon, text = line.partition(":")
        if line.startswith(";") or not colon:
            continue
        recording, words = sounds / f"{key}.wav", spoken(text, DIGITS[language])
        if words is None or not recording.is_file() or not is_plausible(words, seconds(recording)):
            left_out += 1
            continue
        lines.append(f"{recording.relative_to(CACHE).as_posix()}\t{words}\n")
    manifest.write_text("".join(sorted(lines)), encoding="utf-8")
    print(f"{manifest}: {len(lines)} prompts, {left_out} left out")


def prompts(task: Any) -> Requests:
    def recognise(features: torch.Tensor, model: Any) -> tuple[int, ...]:
        return greedy(model(features[None], torch.tensor([len(features)]))[0][0])

    items = task.corpus.splits["test"]
    median = statistics.median(item.frames / 100 for item in items)
    works = [partial(recognise, task.corpus.features.read(item.audio)[0]) for item in items]
    return Requests(f"one prompt, the whole model ({median:.1f} s of speech, median)", works)


EXAMPLES = {
    language: Example(
        name=f"speech_{language}",
        checkpoint=f".cache/speech/{language}.pt",
        run=f".cache/speech/{language}-s90",
        prepare=partial(prepare, language),
        train="ctc --cell lstm --hidden 192 --layers 2 --stride 3 --channels 16 --batch-size 8 "
        f"--steps 2500 --lr 0.002 --threads 1 --no-augment --data .cache/speech/{language}.tsv",
        recipe="--scope model --frequency 20 --end 0.4 --batch-size 8 --steps 1500 --lr 0.002 --threads 1",
        requests=prompts,
    )
    for language in DIGITS
}

if __name__ == "__main__":
    main(EXAMPLES)
