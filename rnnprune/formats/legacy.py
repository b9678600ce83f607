"""What a legacy torch pickle claims, found without loading it: torch reserves a storage before it reads its bytes."""

from __future__ import annotations

import pickletools
from itertools import takewhile
from pathlib import Path

PICKLES = 4  # magic number, protocol, machine, then the object, whose storages are named by persistent ids


def largest_storage(path: Path) -> int:
    """The most elements that any storage claims to have; what was seen before the break of a broken pickle."""
    largest = 0
    numbers: list[int] = []  # since the last mark, with which the persistent id of a storage begins
    try:
        with path.open("rb") as file:
            for _ in range(PICKLES):
                for opcode, argument, _ in takewhile(lambda op: op[0].name != "STOP", pickletools.genops(file)):
                    if opcode.name == "MARK":
                        numbers = []
                    elif isinstance(argument, int) and opcode.name.startswith(("BININT", "LONG", "INT")):
                        numbers.append(argument)
                    elif opcode.name == "BINPERSID":
                        largest = max([largest, *numbers])
    except Exception:  # pickletools raises whatever its input brings about; the loader that follows refuses it
        return largest
    return largest
