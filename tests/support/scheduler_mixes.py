"""The kinds of worlds that promises are tried in."""

from __future__ import annotations

from llm_router_mw.types import HOST
from tests.support.scheduler_setup import Mix

CROWDED = Mix(models=(4, 5, 6), models_max=(1, 2), unpriced=1, weights={"ask": 20, "finish": 8})
"""Slots are short."""
TIGHT = Mix(models_max=(0,), unpriced=0, weights={"observe": 4, "fall_asleep": 6})
"""Memory is short, on one pool or two."""
SEVERAL = Mix(models=(4, 5), models_max=(3, 2, 0), weights={"ask_several": 10, "ask": 6})
"""Requests want two models at once."""
TROUBLED = Mix(weights={"fail_load": 6, "run_out_of_memory": 6, "crash": 4, "defer": 3})
"""Loads fail and workers die."""
SLEEPY = Mix(timed=1, mild=1, workers_max=(0, 3, 2), weights={"put_to_sleep": 6, "wake": 8})
"""Instances sleep and wake."""
SHARED = Mix(models=(5, 6, 7), shared=2, pinned=3, timed=1, weights={"unload": 6, "say_anew": 3})
"""Models share instances."""
GROUPED = Mix(grouped=2, models_max=(0, 3), unpriced=2)
"""Some models must not be resident together."""
ROOMY = Mix(models=(4, 6), models_max=(0, 3), pools=(("gpu0", "gpu1"), ("gpu0", HOST)), too_large=3)
"""Several pools, several placements, and models that never fit."""
COMPANY = Mix(companions=1, models=(3, 4), models_max=(0, 3, 2), unpriced=2, too_large=0)
"""One model must have another beside it."""
REMOTE = Mix(
    remote=2,
    pinned=0,
    models_max=(2, 0),
    weights={"download": 6, "fail_download": 2, "unload": 3, "ask_several": 4},
)
"""Models have to be downloaded first."""
USUAL = Mix()
"""A little of everything."""

MIXES = {
    "usual": USUAL,
    "crowded": CROWDED,
    "tight": TIGHT,
    "several": SEVERAL,
    "troubled": TROUBLED,
    "sleepy": SLEEPY,
    "shared": SHARED,
    "grouped": GROUPED,
    "roomy": ROOMY,
    "company": COMPANY,
    "remote": REMOTE,
}
