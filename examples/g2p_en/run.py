"""g2p-en at 90 %, the long recipe of docs/results/g2p_en.md; demo.py has a short one.

python -m examples.g2p_en.run
"""

from __future__ import annotations

from examples.g2p_en.convert import prepare
from examples.whole_path import Example, main

EXAMPLES = {
    "g2p_en": Example(
        name="g2p_en",
        checkpoint=".cache/g2p_en/g2p.pt",
        run=".cache/g2p_en/g2p-s90",
        spec="examples/g2p_en/g2p_task.py:make",
        prepare=prepare,
        recipe="--scope model --saliency fisher --schedule cubic --start 0.05 --end 0.3 --frequency 50 --lr 0.002 "
        "--epochs 6 --control-lr 0.0001 --threads 1",
    )
}

if __name__ == "__main__":
    main(EXAMPLES)
