"""The studies: pruning against smaller models, schedules, teachers, blocks and int8, on three tasks.

    python -m examples.studies status
    python -m examples.studies run                    # all that is missing, the most telling first
    python -m examples.studies run A/g2p/dense/0      # one cell; B/g2p or B: all under it
    python -m examples.studies run B/g2p --again      # what was made of it is dropped first
    python -m examples.studies run A --jobs 2         # side by side; or start it twice: no cell is made by two
    python -m examples.studies time                   # latencies, on a quiet machine
    python -m examples.studies render                 # docs/results/studies from the raw figures there
    python -m examples.studies pictures               # its svg files, by matplotlib

Run from the top of the repository. The data is fetched as examples/text and examples/speech do. Every run takes one
core, and goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import sys

from examples.studies import cells, pages, pictures, runner, status, timing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("status", "run", "time", "render", "pictures"))
    parser.add_argument("cells", nargs="?", default="", help="STUDY[/TASK[/VARIANT[/SEED]]]")
    parser.add_argument("--jobs", type=int, default=1, help="of run: side by side")
    parser.add_argument("--again", action="store_true", help="of run: also what is there already; CELLS must be named")
    asked = parser.parse_args()
    if asked.again and not (asked.cells and asked.verb == "run" and asked.jobs == 1):
        parser.error("--again belongs to `run CELLS`, without --jobs")
    try:
        chosen = cells.cells(asked.cells)
    except ValueError as error:
        parser.error(str(error))
    if asked.verb == "status":
        print(status.table(chosen))
    elif asked.verb == "run":
        if asked.again:
            runner.forget(chosen)
        return runner.make_all(chosen) if asked.jobs == 1 else runner.side_by_side(asked.cells, asked.jobs)
    elif asked.verb == "time":
        return timing.time_all(chosen)
    elif asked.verb == "render":
        pages.render()
    else:
        return pictures.draw_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
