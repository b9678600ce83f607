"""The tables of docs/results/*.md, from the raw figures beside them; no figure is typed by hand.

    python -m examples.pages

Writes between the marks `<!-- figures: NAME.json -->` and `<!-- end -->` of every page, and between `<!-- overview -->`
and `<!-- end -->` one line for each task of all the pages.
"""

from __future__ import annotations

import json
import re
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results")
MARKED = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
OVERVIEW = re.compile(r"(<!-- overview -->\n).*?(<!-- end -->)", re.DOTALL)
COLUMNS = {"dense": "dense", "dense_control": "control", "sparse": "90 %", "file": "sparse file"}

Row = Mapping[str, Any]


def rendered(page: str, results: Path) -> str:
    """The page with what its raw figures say between the marks."""
    page = MARKED.sub(lambda found: f"{found[1]}{told(results / found[2])}\n{found[3]}", page)
    return OVERVIEW.sub(lambda found: "\n".join([found[1].rstrip(), *overview(results), found[2]]), page)


def overview(results: Path) -> list[str]:
    """One line for each task: the figure that decides, and what 90 % cost of it."""
    lines = ["| task | figure | dense | control | 90 % | against the control | sparse file | seeds |", "|---" * 8 + "|"]
    for path in sorted(results.glob("*.md")):
        for _, name, _ in MARKED.findall(path.read_text(encoding="utf-8")):
            raw = json.loads((results / name).read_text(encoding="utf-8"))
            if isinstance(raw, dict):
                lines.append(f"| [{name.removesuffix('.json')}]({path.name}) | {' | '.join(in_short(raw['rows']))} |")
    return lines


def in_short(rows: Sequence[Row]) -> list[str]:
    metric, size = rows[0]["metric"], [row["bytes"]["sparse"] / row["bytes"]["dense"] for row in rows]
    dense, control, sparse = ([row["figures"][label][metric] for row in rows] for label in list(COLUMNS)[:3])
    aim = "more is better" if rows[0]["goal"] == "max" else "less is better"
    change = gap(statistics.fmean(sparse), statistics.fmean(control))
    shares = [spread(dense), spread(control), spread(sparse), f"{change} %", f"{statistics.fmean(size):.1%} of dense"]
    return [f"{metric}, {aim}", *shares, str(len(rows))]


def told(path: Path) -> str:
    raw = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(raw, list):
        return "\n".join(plain_table(raw))
    parts = [table(raw["rows"]), [*about_files(raw["rows"]), about_training(raw)], commands(raw)]
    if "speed" in raw:
        parts.append(about_speed(raw["speed"]))
    return "\n\n".join("\n".join(part) for part in parts)


def table(rows: Sequence[Row]) -> list[str]:
    """One line per figure: mean and standard deviation over the seeds, and each seed's distance from its control."""
    lines = [f"| figure | {' | '.join(COLUMNS.values())} | against the control, seed by seed |", "|---" * 6 + "|"]
    for name in rows[0]["figures"]["sparse"]:
        cells = [spread(row["figures"][label].get(name) for row in rows) for label in COLUMNS]
        gaps = ", ".join(gap(row["figures"]["sparse"][name], row["figures"]["dense_control"][name]) for row in rows)
        lines.append(f"| {name} | {' | '.join(cells)} | {gaps} % |")
    return lines


def gap(sparse: float, control: float) -> str:
    """Percent of the control."""
    percent = 100 * (sparse / control - 1) if control else float("nan")
    return f"{percent:+.{2 if abs(percent) < 1 else 1}f}"


def spread(values: Iterable[float | None]) -> str:
    """Mean +- standard deviation, four digits or so of the mean; empty where a figure was not measured."""
    found = [value for value in values if value is not None]
    if not found:
        return ""
    mean = statistics.fmean(found)
    places = 2 if abs(mean) >= 10 else 3 if abs(mean) >= 1 else 4
    return f"{mean:.{places}f}" + (f" +- {statistics.stdev(found):.{places}f}" if len(set(found)) > 1 else "")


def about_files(rows: Sequence[Row]) -> list[str]:
    seeds = ", ".join(str(row["seed"]) for row in rows)
    dense, sparse = (statistics.fmean(row["bytes"][key] for row in rows) for key in ("dense", "sparse"))
    engines = ", ".join(sorted({row["engine"] for row in rows}))
    differences = [row["max_difference"] for row in rows if "max_difference" in row]
    return [
        f"- {f'Seeds {seeds}: mean +- standard deviation' if len(rows) > 1 else f'Seed {seeds} alone'}.",
        f"- The sparse file: {sparse / 1000:,.0f} kB, {sparse / dense:.1%} of the dense {dense / 1000:,.0f} kB; scored "
        f"by {engines}.",
        "- The largest difference of any logit between the pruned dense model and `rnnprune.sparsify` of it: "
        f"{f'{max(differences):.1e}' if differences else 'not measured'}.",
    ]


def about_training(raw: Mapping[str, Any]) -> str:
    """Sizes, steps, minutes, machine: as far as they were written down."""
    dense, rows = raw.get("train"), raw["rows"]
    own = [f"{dense['parameters']:,} parameters", f"the dense model took {spent([dense])}"] if dense else []
    pruned = (
        [f"a seed{' with its control' * ('--control' in rows[0]['command'])} took {spent(rows)}"] if spent(rows) else []
    )
    return f"- {'; '.join([*own, *pruned, *where(rows[0])])}."


def where(told: Row) -> list[str]:
    """The machine and the day, where they were written down."""
    machine = told.get("machine")
    cpu = [f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}"] if machine else []
    return [*cpu, *([told["date"]] if "date" in told else [])]


def spent(runs: Sequence[Row]) -> str:
    steps = {f"{run['steps']:,} steps" for run in runs if "steps" in run}
    minutes = sorted(run["seconds"] / 60 for run in runs if "seconds" in run)
    span = dict.fromkeys(f"{each:.0f}" for each in (minutes[0], minutes[-1])) if minutes else ()
    return ", ".join([*sorted(steps), *([f"{' to '.join(span)} min"] if span else [])])


def commands(raw: Mapping[str, Any]) -> list[str]:
    """As they were typed, for the first seed."""
    typed = [part["command"] for part in (raw.get("train"), raw["rows"][0]) if part]
    lines = (textwrap.wrap(command, 114, break_long_words=False, break_on_hyphens=False) for command in typed)
    return ["```sh", *(" \\\n    ".join(line) for line in lines), "```"]


def about_speed(speed: Mapping[str, Any]) -> list[str]:
    times, ratio = speed["milliseconds"], speed["milliseconds"]["ratio"]
    return [
        "| pruned model of seed 0, one thread, medians | run dense | run sparse | times as fast (quartiles) "
        "| same answers |",
        "|---|---|---|---|---|",
        f"| {speed['what']} | {times['dense']:.2f} ms | {times['sparse']:.2f} ms | {ratio['median']:.1f} "
        f"({ratio['q1']:.1f} to {ratio['q3']:.1f}) | {speed['same']} of {speed['requests']} |",
        "",
        f"Engines: {'; '.join([*speed['layers'], *where(speed)])}.",
    ]


def plain_table(rows: Sequence[Row]) -> list[str]:
    """Rows of single runs, as they are."""
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    cells = ([f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in rows)
    return lines + [f"| {' | '.join(row)} |" for row in cells]


def main() -> None:
    for path in sorted(RESULTS.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if MARKED.search(page) or OVERVIEW.search(page):
            path.write_text(rendered(page, RESULTS), encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
