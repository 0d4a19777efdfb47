"""Budgets are kept, across processes and days, and what was used is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from click.testing import CliRunner

from llm_router_mw import LLMRouterApp, Router
from llm_router_mw.cli import main
from llm_router_mw.errors import ConfigError, GuardFailedError, ModelLoadError
from llm_router_mw.testing import FakeEngine, VirtualClock
from llm_router_mw.types import Usage, Wish
from llm_router_mw_quota.account import Account
from llm_router_mw_quota.guard import BudgetUsedUpError, QuotaGuard
from llm_router_mw_quota.options import Budget, Options, owner_of

MakeRouter = Callable[..., Router]
HELLO = [{"role": "user", "content": "hello"}]
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
DAY = 86400.0


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "new" / "quota.sqlite3"


@pytest.fixture
def account(database: Path) -> Account:
    return Account(database, 400_000)


@pytest.fixture
def make(make_llm_router: MakeRouter, database: Path) -> MakeRouter:
    """Make routers with a budget; the plugin is found by its entry point."""

    def make_with(**options: Any) -> Router:
        quota = {"database": str(database), **options}
        return make_llm_router(plugin_options={"quota": quota})

    return make_with


async def ask(router: Router, owner: str = "") -> None:
    lease = await router.lease("a", Wish(owner=owner))
    try:
        await lease.chat(HELLO)
    finally:
        lease.release()


async def told(router: Router, database: Path, requests: int, tokens: int) -> None:
    """Return when the account says so."""
    with anyio.fail_after(5):
        while True:
            entries = Account(database, 400).entries()
            used = sum(each.prompt_tokens + each.completion_tokens for each in entries)
            if (sum(each.requests for each in entries), used) == (requests, tokens):
                return
            await anyio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_budget_of_requests_is_never_exceeded(make: MakeRouter) -> None:
    async with make(requests_per_day=2) as router:
        for _ in range(2):
            await ask(router)
        with pytest.raises(BudgetUsedUpError, match="2 requests a day, is used up") as caught:
            await ask(router)
    assert 0 < (caught.value.retry_after_seconds or 0) <= DAY


@pytest.mark.asyncio
async def test_a_budget_of_tokens_ends_with_the_answer_that_uses_it_up(
    make: MakeRouter, database: Path
) -> None:
    async with make(tokens_per_day=4) as router:
        await ask(router)
        await told(router, database, 1, 3)
        await ask(router)
        await told(router, database, 2, 6)
        with pytest.raises(BudgetUsedUpError, match="4 tokens a day"):
            await ask(router)


@pytest.mark.asyncio
async def test_each_owner_has_a_budget_and_some_one_of_their_own(make: MakeRouter) -> None:
    owners = {"rich": {"key": "rich-key", "requests_per_day": 3}}
    async with make(requests_per_day=1, owners=owners) as router:
        await ask(router, owner_of("other-key"))
        for _ in range(3):
            await ask(router, owner_of("rich-key"))
        for key in ("other-key", "rich-key"):
            with pytest.raises(BudgetUsedUpError):
                await ask(router, owner_of(key))


def test_a_request_that_was_forgotten_is_not_given_back(account: Account) -> None:
    one = Budget(requests_per_day=1)
    assert account.take_request("2026-01-31", "me", "a", one) is None
    account.reset("me", "2026-01-31")
    account.give_back("2026-01-31", "me", "a")
    assert account.take_request("2026-01-31", "me", "a", one) is None
    assert account.take_request("2026-01-31", "me", "a", one) == "requests"


@pytest.mark.asyncio
async def test_what_was_not_served_is_given_back(
    make: MakeRouter, database: Path, llm_router_engine: FakeEngine
) -> None:
    llm_router_engine.broken["a"] = ModelLoadError("broken file")
    async with make(requests_per_day=1) as router:
        with pytest.raises(ModelLoadError):
            await ask(router)
        await told(router, database, 0, 0)


def spoil(database: Path) -> None:
    database.parent.mkdir()
    database.write_bytes(b"no database " * 100)


@pytest.mark.asyncio
async def test_an_account_that_cannot_be_read_serves_nobody(
    make: MakeRouter, database: Path
) -> None:
    spoil(database)
    async with make() as router:
        with pytest.raises(GuardFailedError):
            await ask(router)


@pytest.mark.asyncio
async def test_clients_see_429_and_when_to_come_again(make: MakeRouter) -> None:
    router = make(requests_per_day=1)
    app = LLMRouterApp(router=router, api_keys=["alice-key"])
    transport = httpx.ASGITransport(app)
    body = {"model": "a", "messages": HELLO}
    headers = {"Authorization": "Bearer alice-key"}
    async with router, httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answers = [
            await http.post("/v1/chat/completions", json=body, headers=headers) for _ in range(2)
        ]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["error"]["code"] == "budget_used_up"
    assert int(answers[1].headers["retry-after"]) > 0


@pytest.mark.asyncio
async def test_the_owner_of_a_key_is_what_the_router_calls_it(make: MakeRouter) -> None:
    owners = {"alice": {"key": "alice-key", "requests_per_day": 0}}
    router = make(owners=owners)
    app = LLMRouterApp(router=router, api_keys=["alice-key", "bob-key"])
    transport = httpx.ASGITransport(app)
    body = {"model": "a", "messages": HELLO}
    async with router, httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        statuses = {
            key: (
                await http.post("/v1/chat/completions", json=body, headers={"X-Api-Key": key})
            ).status_code
            for key in ("alice-key", "bob-key")
        }
    assert statuses == {"alice-key": 429, "bob-key": 200}
    assert owner_of("alice-key") == sha256(b"alice-key").hexdigest()


@pytest.mark.asyncio
async def test_a_new_day_brings_a_new_budget(account: Account) -> None:
    from llm_router_mw.protocols import GuardedRequest

    clock = VirtualClock(NOON)
    guard = QuotaGuard(Options(requests_per_day=1), account, clock)
    await guard.before(GuardedRequest(id=1, models=("a",)))
    with pytest.raises(BudgetUsedUpError) as caught:
        await guard.before(GuardedRequest(id=2, models=("a",)))
    assert caught.value.retry_after_seconds == DAY / 2
    clock.advance(DAY / 2)
    await guard.before(GuardedRequest(id=3, models=("a",)))


def test_two_requests_never_share_the_last_place(account: Account) -> None:
    budget = Budget(requests_per_day=5)
    with ThreadPoolExecutor(8) as threads:
        takes = [
            threads.submit(account.take_request, "2026-01-31", "x", "a", budget) for _ in range(20)
        ]
    assert [take.result() for take in takes].count(None) == 5


def test_old_days_are_forgotten(database: Path) -> None:
    Account(database, 400_000).add_tokens("2001-01-01", "x", "a", Usage(prompt_tokens=1))
    assert len(Account(database, 400_000).entries()) == 1
    assert Account(database, 30).entries() == []


def test_an_unknown_option_is_an_error_at_start_up(make: MakeRouter) -> None:
    with pytest.raises(ConfigError, match=r"plugin_options of 'quota': .*strict_budget"):
        make(strict_budget=1)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["quota", *arguments])
    return result.exit_code, result.output


def test_the_account_is_printed(account: Account, database: Path) -> None:
    account.take_request("2026-01-31", owner_of("k"), "a", Budget())
    account.add_tokens("2026-01-31", owner_of("k"), "a", Usage(prompt_tokens=7))
    code, output = run("report", "--database", str(database))
    assert code == 0
    assert owner_of("k")[:12] in output
    [entry] = json.loads(run("report", "--database", str(database), "--json")[1])
    assert (entry["requests"], entry["prompt_tokens"]) == (1, 7)
    assert run("report", "--database", str(database), "--since", "2026-02-01", "--json") == (
        0,
        "[]\n",
    )


def test_there_may_be_no_account_yet(database: Path) -> None:
    code, output = run("report", "--database", str(database))
    assert code == 1
    assert "no account" in output


def test_an_owner_can_be_given_a_new_budget(account: Account, database: Path) -> None:
    today = datetime.now(UTC).date().isoformat()
    owner = run("owner", "k")[1].strip()
    account.take_request(today, owner, "a", Budget())
    assert run("reset", "--database", str(database), owner)[0] == 0
    code, output = run("reset", "--database", str(database), owner)
    assert code == 1
    assert "used nothing" in output
