"""What a shell sees of the real program: help that starts at once, and no escape codes where they do not belong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HEAVY = ("torch", "scipy", "numpy", "safetensors", "rnnprune.kernels", "rnnprune.tasks.lm", "jaxtyping")
ASK_FOR_HELP = """
import sys
from rnnprune.cli.app import app
for arguments in (["--help"], ["finetune", "--help"], ["train", "lm", "--help"], ["bench", "-h"], ["--version"]):
    try:
        app(arguments)
    except SystemExit as leave:
        assert leave.code == 0, leave.code
print("loaded:", *[name for name in sys.argv[1:] if name in sys.modules], file=sys.stderr)
"""
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


def plain_environment(**more: str) -> dict[str, str]:
    dropped = ("RNNPRUNE_", "FORCE_COLOR", "NO_COLOR", "GITHUB_ACTIONS", "PY_COLORS")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | more


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK_FOR_HELP, *HEAVY],
        capture_output=True,
        text=True,
        env=plain_environment(TERM="xterm-256color"),
        check=True,
    )
    assert done.stderr == "loaded:\n"
    for word in ("train", "finetune", "prune", "export", "report", "bench", "evaluate", "--version"):
        assert word in done.stdout
    for flag in ("--target", "--schedule", "--saliency", "--control", "--cell", "--rounds", "--config", "--json"):
        assert flag in done.stdout
    assert "\x1b" not in done.stdout, "this is no terminal"


def test_a_pipe_gets_no_escape_codes_and_one_clean_object(tmp_path: Path) -> None:
    torch.save(torch.nn.GRU(6, 8).state_dict(), tmp_path / "bare.pt")
    program = [sys.executable, "-W", "error", "-m", "rnnprune"]
    environment = plain_environment(TERM="xterm-256color")
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "env": environment}
    pruned = subprocess.run([*program, "prune", "bare.pt", "--target", "0.75"], **options, check=True)
    assert "\x1b" not in pruned.stdout + pruned.stderr
    assert "bare-s75: 75.00% zeros" in pruned.stdout
    refused = subprocess.run([*program, "prun", "bare.pt"], **options, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "No such command 'prun'" in refused.stderr
    assert "\x1b" not in refused.stderr


@pytest.mark.skipif(shutil.which("script") is None, reason="util-linux script gives a terminal")
def test_no_color_is_honoured_on_a_terminal(tmp_path: Path) -> None:
    """Only colour: rich still draws bold headings, which NO_COLOR does not speak of."""
    command = f"{sys.executable} -m rnnprune finetune --help"
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True, "stdin": subprocess.DEVNULL}
    terminal = ["script", "-qec", command, "/dev/null"]
    coloured = subprocess.run(terminal, **options, env=plain_environment(TERM="xterm-256color"))
    assert COLOUR.search(coloured.stdout), "otherwise this test shows nothing"
    plain = subprocess.run(terminal, **options, env=plain_environment(TERM="xterm-256color", NO_COLOR="1"))
    assert "Share of zeros" in plain.stdout
    assert not COLOUR.search(plain.stdout)
