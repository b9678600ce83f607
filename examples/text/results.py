"""The tables of docs/results/{translation,g2p_seq2seq,lm}.md, from the raw figures beside them.

Usage: python examples/text/results.py      (writes between the two marks of each page; no figure is typed by hand)
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results")
PAGES = {"translation": "translation.md", "g2p": "g2p_seq2seq.md", "lm": "lm.md"}
BEGIN, END = "<!-- results.py -->", "<!-- end -->"
LABELS = {"dense": "dense, as trained", "dense_control": "dense, trained on as long", "sparse": "90 % zeros"}


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; four figures."""
    places = 2 if statistics.fmean(values) >= 10 else 3
    return f"{statistics.fmean(values):.{places}f} +- {statistics.stdev(values):.{places}f}"


def table(answer: Mapping[str, Any]) -> list[str]:
    names = list(answer["runs"][0]["figures"]["dense"])
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for label, told in LABELS.items():
        columns = [[run["figures"][label][name] for run in answer["runs"]] for name in names]
        cells = [f"{column[0]:.4g}" if label == "dense" else spread(column) for column in columns]
        lines.append(f"| {told} | " + " | ".join(cells) + " |")
    return lines


def gaps(answer: Mapping[str, Any]) -> str:
    """The distance from the control, one seed after the other."""
    name = answer["name"]
    pairs = [(run["figures"]["dense_control"][name], run["figures"]["sparse"][name]) for run in answer["runs"]]
    relative = [100 * abs(sparse - control) / control for control, sparse in pairs]
    direction = "worse" if (pairs[0][1] > pairs[0][0]) == (answer["goal"] == "min") else "better"
    return f"{name} relative to the control, seed by seed: {', '.join(f'{gap:.1f}' for gap in relative)} % {direction}."


def page(name: str) -> list[str]:
    answer = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    runs = answer["runs"]
    lines = [*table(answer), "", gaps(answer), ""]
    sizes = runs[0]["bytes"]
    engines = ", ".join(sorted({run["sparse_file"]["engine"] for run in runs}))
    scored = ", ".join(f"{run['sparse_file']['value']:.4g}" for run in runs)
    lines += [
        f"The sparse file: {sizes['csr'] / 1000:,.0f} kB, {sizes['csr'] / sizes['dense']:.1%} of the dense "
        f"{sizes['dense'] / 1000:,.0f} kB (embeddings stay dense).",
        f"{answer['name']} of these files as `rnnprune evaluate` scores them ({engines}): {scored}.",
        f"{answer['dense']['parameters']:,} parameters. Measured {answer['date']}, torch {answer['machine']['torch']}.",
    ]
    speed = RESULTS / f"{name}_speed.json"
    return lines + (spoken(json.loads(speed.read_text(encoding="utf-8")), answer) if speed.is_file() else [])


def spoken(speed: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    times, ratio = speed["milliseconds"], speed["milliseconds"]["ratio"]
    step = speed["training_step_milliseconds"]
    minutes = [step * count / 60_000 for count in (answer["dense"]["steps"], 2 * answer["runs"][0]["steps"])]
    return [
        "",
        "| pruned model of seed 0 | run dense | run sparse | times as fast (quartiles) | same answers | difference |",
        "|---|---|---|---|---|---|",
        f"| {speed['what']} | {times['dense']:.2f} ms | {times['sparse']:.2f} ms | {ratio['median']:.1f} "
        f"({ratio['q1']:.1f} to {ratio['q3']:.1f}) | {speed['same']} | {speed['max_difference']:.1g} |",
        "",
        f"Engines: {'; '.join(speed['layers'])}.",
        "",
        f"A training step took {step:.0f} ms beside the timing (one thread, median): {minutes[0]:.1f} minutes for "
        f"the {answer['dense']['steps']:,} of the dense model, {minutes[1]:.1f} for a seed with its control.",
    ]


def main() -> None:
    for name, file in PAGES.items():
        path = RESULTS / file
        before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        path.write_text("\n".join([before + BEGIN, *page(name), END]) + after, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
