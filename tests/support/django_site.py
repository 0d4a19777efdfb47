"""Django in the process of the tests: it is configured once, and each site brings its own URLs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.test.utils import override_settings
from django.urls import URLPattern


@contextmanager
def django_site(*urls: URLPattern) -> Iterator[ASGIHandler]:
    """Serve *urls* meanwhile, whatever other tests have Django serve."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of a test")
        django.setup(set_prefix=False)
    patterns: Sequence[URLPattern] = urls
    with override_settings(ROOT_URLCONF=patterns):
        yield ASGIHandler()
