"""A host's log begins anew, keeps the one before, and does not grow without bound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_router_mw.shared.host_log import fresh_log, last_lines

TALKATIVE = """
import logging, os, sys, warnings
from pathlib import Path
from llm_router_mw.shared import host_log
host_log._LOG_BYTES = 300
host_log.configure(Path(sys.argv[1]))
logger = logging.getLogger("llm_router_mw.shared")
logger.debug("too much")
logging.getLogger("some.library").info("too much")
for number in range(20):
    logger.info("line %d", number)
warnings.warn("old age")
for descriptor in (1, 2):
    os.write(descriptor, b"from native code %d\\n" % descriptor)
"""


REPLACED = """
import logging, os, sys
from pathlib import Path
from llm_router_mw.shared import host_log
host_log._LOG_BYTES = 300
path = Path(sys.argv[1])
host_log.configure(path)
if sys.argv[2] == "another":
    os.close(host_log.fresh_log(path))
else:
    path.unlink()
for number in range(20):
    logging.getLogger("llm_router_mw.shared").info("line %d", number)
"""


@pytest.mark.parametrize("its_place", ["another", "nothing"])
def test_a_host_that_was_replaced_leaves_the_log_to_the_next(
    tmp_path: Path, its_place: str
) -> None:
    path = tmp_path / "s.log"
    command = [sys.executable, "-c", REPLACED, str(path), its_place]
    subprocess.run(command, check=True, timeout=30)
    texts = {file.name: file.read_text() for file in tmp_path.iterdir()}
    if its_place == "nothing":
        assert texts == {}
    else:
        assert texts["s.log"] == ""
        assert "line 19" in texts["s.log.1"]


def test_it_begins_anew_and_the_one_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    for text in (b"first", b"second", b"third"):
        descriptor = fresh_log(path)
        os.write(descriptor, text)
        os.close(descriptor)
    assert path.read_bytes() == b"third"
    assert (tmp_path / "s.log.1").read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_said_last_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    assert "cannot be read" in last_lines(path)
    path.write_bytes(b"x" * 10_000 + b"\nwhy\xff\n")
    assert last_lines(path).endswith("x\nwhy\ufffd")
    assert len(last_lines(path)) < 5000


def test_all_that_a_host_says_goes_there_and_little_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    with open(fresh_log(path), "wb") as log:
        command = [sys.executable, "-c", TALKATIVE, str(path)]
        subprocess.run(command, stdout=log, stderr=log, check=True, timeout=30)
    now, before = path.read_text(), (tmp_path / "s.log.1").read_text()
    assert "INFO    llm_router_mw.shared: line 19" in before + now
    assert "too much" not in before + now
    assert "old age" in before + now
    assert "from native code 1" in now
    assert "from native code 2" in now
    assert len(before) <= 300
    assert len(list(tmp_path.iterdir())) == 2
