"""Who must not stay without whom: whoever goes takes those along who need him."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from llm_router_mw.memory.ledger import Amounts
from llm_router_mw.protocols import Candidate
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.states import AWAKE, LEAVING, LOADED
from llm_router_mw.types import InstanceKey


class Company:
    """Who needs whom among some instances, as things are now."""

    def __init__(self, residents: Iterable[Instance]) -> None:
        self._needed_by: dict[InstanceKey, list[Instance]] = {}
        for instance in residents:
            if instance.state in AWAKE and instance.state not in LEAVING:
                for companion in instance.terms.companions:
                    self._needed_by.setdefault(companion.instance, []).append(instance)

    def of(self, instance: Instance) -> list[Instance]:
        """Return all who are awake and must not stay awake when *instance* goes."""
        if instance.state is not LOADED:
            return []  # who sleeps is nobody's company any more
        found = {instance.key: instance}
        following = [instance]
        while following:
            for each in self._needed_by.get(following.pop().key, ()):
                if each.key not in found:
                    found[each.key] = each
                    following.append(each)
        return [each for each in found.values() if each is not instance]

    def separable(
        self, instances: Iterable[Instance], may_go: Collection[InstanceKey]
    ) -> list[Instance]:
        """Return those of *instances* that need to take nobody along who may not go."""
        return [each for each in instances if all(one.key in may_go for one in self.of(each))]

    def with_all(
        self,
        chosen: Sequence[Candidate],
        may_go: Iterable[Instance],
        shown: Callable[[Instance], Candidate],
        lacking: Amounts,
    ) -> list[Candidate]:
        """Return *chosen* with those they take along, but without whom is then not needed.

        *shown* returns how one goes that is taken along.
        """
        by_key = {each.key: each for each in may_go}
        all_shown = {each.instance: each for each in chosen}
        along: dict[InstanceKey, set[InstanceKey]] = {}
        for victim in chosen:
            followers = [one for one in self.of(by_key[victim.instance]) if one.key in by_key]
            along[victim.instance] = {victim.instance, *(one.key for one in followers)}
            for one in followers:
                all_shown.setdefault(one.key, shown(one))
        for key in reversed([each.instance for each in chosen]):
            others = _union(each for other, each in along.items() if other != key)
            if _are_enough((all_shown[each] for each in others), lacking):
                del along[key]
        going = _union(along.values())
        for key in reversed(list(all_shown)):
            others = going - {key}
            needs_others = any(by_key[key] in self.of(by_key[other]) for other in others)
            if needs_others or key not in going:
                continue
            if _are_enough((all_shown[each] for each in others), lacking):
                going = others
        return [each for key, each in all_shown.items() if key in going]


def _union(sets: Iterable[set[InstanceKey]]) -> set[InstanceKey]:
    return set().union(*sets)


def _are_enough(candidates: Iterable[Candidate], lacking: Amounts) -> bool:
    going = list(candidates)
    return all(
        sum(each.freed.get(resource, 0) for each in going) >= amount
        for resource, amount in lacking.items()
    )
