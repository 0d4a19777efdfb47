"""Tickets that are served are not looked at again, and are as soon as something happens to one."""

from __future__ import annotations

from llm_router_mw.scheduler.queue import Queue, Ticket, Waiter
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, key


def filed(queue: Queue, name: str, since: float, *, priority: int = 0) -> Ticket:
    number = len(queue) + 1
    waiter = Waiter(number, (key(name),), (name,), True, priority, since, since + 600)
    return queue.add(waiter)


def unserved(queue: Queue) -> list[str]:
    return [ticket.instances[0].path for ticket in queue.unserved()]


class TestQueue:
    def test_the_walk_begins_after_those_who_are_served(self) -> None:
        queue = Queue()
        first = filed(queue, "a", 0)
        filed(queue, "b", 1)
        queue.serve(first)
        assert unserved(queue) == ["b"]

    def test_one_with_more_priority_lets_those_behind_it_be_looked_at(self) -> None:
        queue = Queue()
        queue.serve(filed(queue, "a", 0, priority=2))
        queue.serve(filed(queue, "b", 1))
        filed(queue, "c", 2, priority=1)
        assert unserved(queue) == ["c", "b"]

    def test_one_that_leaves_changes_nothing_for_others(self) -> None:
        queue = Queue()
        queue.serve(filed(queue, "a", 0))
        queue.serve(filed(queue, "b", 1))
        filed(queue, "c", 2)
        queue.remove(1)
        assert unserved(queue) == ["c"]

    def test_one_that_goes_first_where_it_was_first_keeps_its_place(self) -> None:
        queue = Queue()
        first, second = filed(queue, "a", 0), filed(queue, "b", 1)
        queue.serve(first)
        queue.hurry(first)
        assert first.is_overdue
        assert unserved(queue) == ["b"]
        queue.serve(second)
        queue.hurry(filed(queue, "c", 2))
        assert unserved(queue) == ["c", "b"]

    def test_something_happens_to_one(self) -> None:
        queue = Queue()
        tickets = [filed(queue, name, since) for since, name in enumerate("abc")]
        for ticket in tickets:
            queue.serve(ticket)
        queue.look_again(tickets[1])
        assert unserved(queue) == ["b", "c"]
        queue.look_at_all()
        assert unserved(queue) == ["a", "b", "c"]

    def test_who_leaves_during_the_walk_is_passed(self) -> None:
        queue = Queue()
        for since, name in enumerate("abc"):
            filed(queue, name, since)
        seen = []
        for ticket in queue.unserved():
            seen.append(ticket.instances[0].path)
            queue.remove_ticket(ticket)
        assert seen == ["a", "b", "c"]


def test_who_is_spared_drains_for_the_next_at_once() -> None:
    world = World(models_max=2, max_wait_seconds=30)
    world.serve("a")
    world.now += 1
    busy = world.serve("b")
    world.ask("c")
    world.ask("d")
    world.tick(31)
    assert world.release(busy) == ["stop b"]
    assert world.exited("b") == ["start c"]  # for which a was to go, and need not any more
    assert world.state("a") is InstanceState.DRAINING
    assert "'d'" in world.reasons("a")[-1]
