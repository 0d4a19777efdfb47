"""Drives random worlds for as long as one likes, and writes down what goes wrong.

``python -m tests.support.scheduler_storm --steps 1000000 --seed 1``
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.support.scheduler_mixes import MIXES
from tests.support.scheduler_script import Script, play, random_script, shortest
from tests.support.scheduler_setup import Mix

_MOVES = 300


def main(arguments: list[str] | None = None) -> int:
    """Play until so many steps were taken; return 1 at the first broken promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mix", choices=sorted(MIXES), help="one kind of world only")
    parser.add_argument("--moves", type=int, default=_MOVES, help="moves of one world")
    options = parser.parse_args(arguments)
    mixes = [MIXES[options.mix]] if options.mix else list(MIXES.values())
    began, steps, worlds = time.perf_counter(), 0, 0
    while steps < options.steps:
        rng = random.Random(options.seed * 1_000_003 + worlds)
        mix, crowd = mixes[worlds % len(mixes)], bool(worlds // len(mixes) % 2)
        script = random_script(rng, options.moves)
        try:
            steps += play(script, mix, crowd=crowd).book.steps
        except Exception as error:
            print(f"world {worlds} of seed {options.seed}: {error}", file=sys.stderr)
            _show(shortest(script, mix, crowd=crowd), mix, crowd)
            return 1
        worlds += 1
    seconds = time.perf_counter() - began
    print(f"{steps} steps in {worlds} worlds, all promises kept, {seconds:.1f} s")
    return 0


def _show(script: Script, mix: Mix, crowd: bool) -> None:
    try:
        play(script, mix, crowd=crowd)
    except Exception as error:
        print(f"at the shortest, {len(script) - 1} moves: {type(error).__name__}: {error}")
        print("\n".join(getattr(error, "__notes__", ())))


if __name__ == "__main__":
    raise SystemExit(main())
