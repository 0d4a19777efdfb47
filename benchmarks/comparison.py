"""Runs a scenario on all sides in turn, round after round."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.answer import RefusedError
from benchmarks.outcome import OURS, Outcome, Series
from benchmarks.scenario import Sample, Scenario
from benchmarks.servers import Server, ServerError, Side


class Comparison:
    """One scenario between some sides."""

    def __init__(
        self,
        scenario: Scenario,
        sides: Sequence[Side],
        model: Path,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Compare *sides* with the file *model*; *report* is told each result."""
        self._scenario = scenario
        self._sides = list(sides)
        self._model = model
        self._report = report
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        self._notes: list[str] = []

    def run(self, rounds: int) -> Outcome:
        """Run *rounds* rounds; a side that refuses the scenario is left out, with a note."""
        with self._servers() as servers:
            for number in range(rounds):
                # Each side goes first, last and between: what changes with time hurts all alike.
                start = number % len(self._sides) if self._sides else 0
                for side in self._sides[start:] + self._sides[:start]:
                    self._try(side, number, servers)
        self._compare_tokens()
        return self._outcome(rounds)

    @contextmanager
    def _servers(self) -> Iterator[dict[str, Server]]:
        """Keep servers running throughout, unless the scenario wants fresh ones."""
        with ExitStack() as stack:
            servers: dict[str, Server] = {}
            if not self._scenario.fresh_servers:
                for side in tuple(self._sides):
                    with self._leaving_out(side):
                        server = side.start(self._model, self._scenario.settings)
                        stack.callback(server.stop)
                        servers[side.name] = server
            yield servers

    def _try(self, side: Side, number: int, servers: dict[str, Server]) -> None:
        with self._leaving_out(side):
            running = servers.get(side.name)
            if running is not None:
                sample = self._measure(running, number)
            else:
                fresh = side.start(self._model, self._scenario.settings)
                try:
                    sample = self._measure(fresh, number)
                finally:
                    fresh.stop()
            self._samples[side.name].append(sample)
            values = ", ".join(f"{value:.4g}" for value in sample.values)
            self._report(f"{self._scenario.name}, round {number + 1}, {side.name}: {values}")

    def _measure(self, server: Server, number: int) -> Sample:
        return self._scenario.measure(server, random.Random(f"{self._scenario.name} {number}"))

    @contextmanager
    def _leaving_out(self, side: Side) -> Iterator[None]:
        try:
            yield
        except (RefusedError, ServerError) as error:
            self._sides = [each for each in self._sides if each is not side]
            self._samples.pop(side.name, None)
            # What the server printed is for whoever looks on, not for the documents.
            reason, *printed = str(error).splitlines()
            self._note(f"{side.name} left out: {reason.removesuffix(':')}")
            for line in printed:
                self._report(line)

    def _compare_tokens(self) -> None:
        """Note it if the sides did not do the same work."""
        counts = {name: [each.tokens for each in own] for name, own in self._samples.items()}
        if len({tuple(each) for each in counts.values()}) > 1:
            shown = "; ".join(f"{name} {own[0][0]}+{own[0][1]}" for name, own in counts.items())
            self._note(f"not the same work, tokens of prompts and answers: {shown}")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._report(f"{self._scenario.name}: {text}")

    def _outcome(self, rounds: int) -> Outcome:
        # Figures of llama-server alone would only look like a comparison.
        series = [
            Series(metric, {name: [each.values[at] for each in own] for name, own in kept.items()})
            for at, metric in enumerate(self._scenario.metrics)
            if (kept := self._samples) and OURS in kept
        ]
        return Outcome(
            scenario=self._scenario.name,
            title=self._scenario.title,
            rounds=rounds,
            series=series,
            notes=self._notes,
        )
