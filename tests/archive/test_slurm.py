"""The page on clusters, tried: its script, with commands that stand in for SLURM's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.archive.conftest import content
from tests.conftest import Said

PAGE = Path(__file__).parents[2] / "docs/scale.md"
# They take what SLURM's take and answer as it does; a job runs here, at once.
SBATCH = """#!/bin/sh
grep '^#SBATCH' "$1" >> "$ROOM/asked"
cp "$1" "$ROOM/job.sh"
sh "$ROOM/job.sh" > "$ROOM/job.out" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill "$@"
"""


def script() -> str:
    """``cluster.py`` of the page, for one small job on this machine."""
    (found,) = re.findall(r"```python\n(# cluster\.py.*?)```", PAGE.read_text("utf-8"), re.S)
    text = str(found)
    for given, here in (
        ("cores=16", "cores=1"), ("processes=16", "processes=1"), ('"32GB"', '"2GB"'),
        ('"port": 8786', '"port": 0, "host": "127.0.0.1"'), ("maximum_jobs=8", "maximum_jobs=1"),
    ):  # fmt: skip
        assert given in text
        text = text.replace(given, here)
    return text


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """What the script says to give ``--scheduler``."""
    for name, body in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(body)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "cluster.py").write_text(script())
    room = {"ROOM": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(
        [sys.executable, "cluster.py"], cwd=tmp_path, env={**os.environ, **room},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as cluster:  # fmt: skip
        assert cluster.stdout is not None
        yield cluster.stdout.readline().strip()
        cluster.terminate()


def test_the_script_of_the_page_starts_workers(
    fill: Callable[..., Said], small: Path, address: str, tmp_path: Path
) -> None:
    assert address.startswith("tcp://127.0.0.1:")
    command = [
        sys.executable, "-m", "terrella", "run", "precipitation", str(small / "**/*.nc"), "--out",
        str(tmp_path / "s"), "--scheduler", address,
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    asked = (tmp_path / "asked").read_text()
    assert "-p normal" in asked and "-t 12:00:00" in asked and "--mem=2G" in asked
    assert fill(small, tmp_path / "one").code == 0
    assert content(tmp_path / "s") == content(tmp_path / "one")
