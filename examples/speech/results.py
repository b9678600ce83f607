"""The tables of docs/results/speech.md, from the raw figures beside it.

Usage: python -m examples.speech.results      (writes between the two marks of the page; no figure is typed by hand)
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results")
LANGUAGES = {"en": "English", "it": "Italian"}
BEGIN, END = "<!-- results.py -->", "<!-- end -->"
LABELS = {"dense": "dense, as trained", "dense_control": "dense, trained on as long", "sparse": "90 % zeros"}
NAMES = ("CER", "WER", "CER_beam8", "WER_beam8")


def spread(values: Sequence[float]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.fmean(values):.1f} +- {statistics.stdev(values):.1f}"


def table(answer: Mapping[str, Any]) -> list[str]:
    lines = ["| test prompts, % | " + " | ".join(NAMES) + " |", "|---|" + "---|" * len(NAMES)]
    for label, told in LABELS.items():
        columns = [[run["figures"][label]["test"][name] for run in answer["runs"]] for name in NAMES]
        lines.append(f"| {told} | " + " | ".join(map(spread, columns)) + " |")
    return lines


def gaps(answer: Mapping[str, Any]) -> str:
    pairs = [[run["figures"][label]["test"]["CER"] for label in LABELS] for run in answer["runs"]]
    relative = ", ".join(f"{100 * (sparse - control) / control:+.1f}" for _, control, sparse in pairs)
    return f"CER at 90 % relative to the control, seed by seed: {relative} %."


def section(language: str, title: str) -> list[str]:
    answer = json.loads((RESULTS / f"speech_{language}.json").read_text(encoding="utf-8"))
    runs, dense = answer["runs"], answer["dense"]
    sizes, minutes = runs[0]["bytes"], statistics.fmean(run["seconds"] / 60 for run in runs)
    scored = ", ".join(f"{run['sparse_file']['value']:.2f}" for run in runs)
    engines = ", ".join(sorted({run["sparse_file"]["engine"] for run in runs}))
    lines = [f"## {title}", "", *table(answer), "", gaps(answer), ""]
    lines += [
        f"The sparse file: {sizes['csr'] / 1000:,.0f} kB, {sizes['csr'] / sizes['dense']:.1%} of the dense "
        f"{sizes['dense'] / 1000:,.0f} kB; CER of the {len(runs)} files as `rnnprune evaluate` scores them "
        f"({engines}): {scored}.",
        f"{dense['parameters']:,} parameters; the dense model took {dense['seconds'] / 60:.0f} minutes of the clock, a "
        f"seed with its control {minutes:.0f}, one thread each, several at once and other work beside them.",
        f"Measured {answer['date']} with torch {answer['machine']['torch']}.",
        "",
    ]
    speed = RESULTS / f"speech_{language}_speed.json"
    return lines + (fast(json.loads(speed.read_text(encoding="utf-8"))) if speed.is_file() else [])


def fast(speed: Mapping[str, Any]) -> list[str]:
    times, ratio = speed["milliseconds"], speed["milliseconds"]["ratio"]
    return [
        f"| pruned model of seed 0, one prompt ({speed['seconds']:.1f} s, medians) | run dense | run sparse | times as "
        "fast (quartiles) | same answers | largest difference |",
        "|---|---|---|---|---|---|",
        f"| the whole model | {times['dense']:.2f} ms | {times['sparse']:.2f} ms | {ratio['median']:.1f} "
        f"({ratio['q1']:.1f} to {ratio['q3']:.1f}) | {speed['same']} of {speed['prompts']} "
        f"| {speed['max_difference']:.1g} |",
        "",
        f"Seconds of speech per second, one thread: {speed['realtime']['dense']:.0f} dense, "
        f"{speed['realtime']['sparse']:.0f} sparse. Engines: {'; '.join(speed['layers'])}.",
        "",
    ]


def tried() -> list[str]:
    """Single runs of seed 0, beside those of the same language above."""
    lines = ["## What was tried", "", "| | flags that differ from run.py | CER | WER |", "|---|---|---|---|"]
    for run in json.loads((RESULTS / "speech_tried.json").read_text(encoding="utf-8")):
        lines.append(f"| {run['what']} | `{run['flags']}` | {run['CER']:.1f} | {run['WER']:.1f} |")
    return lines


def main() -> None:
    path = RESULTS / "speech.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    lines = [line for language, title in LANGUAGES.items() for line in section(language, title)] + tried()
    path.write_text("\n".join([before + BEGIN, *lines, END]) + after, encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
