"""A Django project in one file with the router around it, served by daphne.

Run:  MODELS_DIR=models PYTHONPATH=examples daphne --bind 127.0.0.1 --port 8080 django_asgi:app
Ask:  curl localhost:8080/v1/models
      curl 'localhost:8080/ask/guide?question=What+is+a+lease'
Django has no lifespan, and daphne sends none: the router starts with the first request.
"""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import JsonResponse
from django.urls import path

from llm_router_mw import LLMRouterError, LLMRouterMiddleware, get_router

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of an example")
django.setup()


async def ask(request: ASGIRequest, model: str) -> JsonResponse:
    """Let a model answer; while it is held it cannot be evicted."""
    try:
        async with get_router(request).acquire(model) as llm:
            messages = [{"role": "user", "content": request.GET["question"]}]
            reply = await llm.chat(messages, max_tokens=200)
    except LLMRouterError as error:
        return JsonResponse({"error": error.message}, status=error.status)
    return JsonResponse({"answer": reply.text, "tokens": reply.usage.completion_tokens})


urlpatterns = [path("ask/<model>", ask)]
app = LLMRouterMiddleware(get_asgi_application(), models_dir=os.environ.get("MODELS_DIR", "models"))
