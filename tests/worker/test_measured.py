"""A real worker reports what its instance holds."""

from __future__ import annotations

from pathlib import Path

from tests.worker.process import WorkerProcess


def test_a_load_reports_what_it_holds(worker: WorkerProcess, endless: Path) -> None:
    memory = worker.load(endless, n_ctx=1024, use_mmap=False).info.memory
    assert memory is not None
    [cpu, output] = sorted(memory.buffers, key=lambda buffer: buffer.buffer_type)
    assert (cpu.buffer_type, cpu.device, output.buffer_type) == ("CPU", "host", "output")
    assert cpu.weights_bytes > 500_000
    assert cpu.context_bytes == 2 * 2 * 1024 * 64 * 2
    held = cpu.weights_bytes + cpu.context_bytes
    assert held < memory.private_bytes <= memory.peak_bytes
