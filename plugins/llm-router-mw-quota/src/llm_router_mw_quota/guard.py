"""Lets requests pass as long as their owner's budget lasts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import anyio.to_thread

from llm_router_mw.errors import RequestError
from llm_router_mw.protocols import GuardedRequest, RequestOutcome
from llm_router_mw_quota.account import Account
from llm_router_mw_quota.options import NOBODY, Options


class BudgetUsedUpError(RequestError):
    """The owner of the request has used what it may in a day."""

    status = 429
    error_type = "rate_limit_error"
    code = "budget_used_up"


class QuotaGuard:
    """A request guard that keeps an account.

    Args:
        now: Unix time; days are those of UTC.
    """

    name = "quota"

    def __init__(self, options: Options, account: Account, now: Callable[[], float]) -> None:
        self._options = options
        self._account = account
        self._now = now
        self._days: dict[int, str] = {}
        """Day on which each request under way was counted."""

    async def before(self, request: GuardedRequest) -> None:
        """Count the request.

        Raises:
            BudgetUsedUpError: there is no budget left for it.
        """
        now = datetime.fromtimestamp(self._now(), UTC)
        day, owner = now.date().isoformat(), request.owner or NOBODY
        budget = self._options.budget(owner)
        used_up = await anyio.to_thread.run_sync(
            self._account.take_request, day, owner, request.models[0], budget
        )
        if used_up is None:
            self._days[request.id] = day
            return
        most = budget.requests_per_day if used_up == "requests" else budget.tokens_per_day
        raise BudgetUsedUpError(
            f"the budget of this API key, {most} {used_up} a day, is used up; ask again tomorrow "
            "(UTC)",
            retry_after_seconds=_until_tomorrow(now),
        )

    async def after(self, request: GuardedRequest, outcome: RequestOutcome) -> None:
        """Count what the answer used, on the day on which it was asked for."""
        day, owner = self._days.pop(request.id), request.owner or NOBODY
        account, model = self._account, request.models[0]
        if outcome.status == "served":
            await anyio.to_thread.run_sync(account.add_tokens, day, owner, model, outcome.usage)
        else:
            await anyio.to_thread.run_sync(account.give_back, day, owner, model)


def _until_tomorrow(now: datetime) -> float:
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (tomorrow - now).total_seconds()
