"""The promises about models whose files have yet to be downloaded."""

from __future__ import annotations

from collections.abc import Iterable

from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceState
from tests.support.scheduler_book import Book
from tests.support.scheduler_promise import cools_down, fits_alone, promise
from tests.support.scheduler_records import Step


@promise
def files_are_fetched_for_somebody_and_only_if_they_may_fit(
    book: Book, step: Step
) -> Iterable[str]:
    """Nothing is downloaded on a guess, or only to find that there is no memory for it."""
    for key in step.fetched:
        told = [asked for asked in step.waiting if key in asked.wanted]
        if not told and not book.wants(key):
            yield f"{key} was to be fetched though nobody waits for it"
        if not fits_alone(book, key):
            yield f"{key} was to be fetched though it never fits"
        if cools_down(book, key):
            yield f"{key} was to be fetched while it cools down"


@promise
def who_waits_for_files_gets_them(book: Book, step: Step) -> Iterable[str]:
    """What is missing and waited for is fetched, or those who wait are told why not."""
    if book.closing:
        return
    for key in book.missing:
        asked = book.wants(key)
        if asked and key not in book.downloads and key not in book.price_wanted:
            yield f"request {asked[0].id} waits for {key}, and nobody fetches it"
        if isinstance(step.event, events.DownloadFailed) and key == step.event.instance and asked:
            is_told = key in book.downloads  # the news was of an earlier one
            if not is_told:
                yield f"request {asked[0].id} was not told that the download of {key} failed"


@promise
def a_download_takes_no_memory(book: Book, step: Step) -> Iterable[str]:
    """It is charged with nothing, and everybody sees what it is."""
    for key in book.downloads:
        if book.scheduler.ledger.charge_of(key):
            yield f"{key} is charged while it is downloaded"
        if book.state(key) is not InstanceState.DOWNLOADING:
            yield f"{key} is downloaded and shown as {book.state(key)}"
    for key in book.missing - set(book.downloads):
        if book.state(key) is InstanceState.DOWNLOADING:
            yield f"{key} is shown as if it were downloaded"
