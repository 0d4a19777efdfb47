"""A Django project in one file with the router around it, served by gunicorn's threads.

Run:  MODELS_DIR=models gunicorn --chdir examples -k gthread --threads 8 -b :8080 django_wsgi:app
Ask:  curl localhost:8080/v1/models
      curl 'localhost:8080/ask/guide?question=What+is+a+lease'
"""

import os

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

from llm_router_mw import LLMRouterError, LLMRouterWSGIMiddleware, get_sync_router

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of an example")
django.setup()


def ask(request: WSGIRequest, model: str) -> JsonResponse:
    """Let a model answer; the facade has the router's verbs, without ``await``."""
    try:
        with get_sync_router(request).acquire(model) as llm:
            messages = [{"role": "user", "content": request.GET["question"]}]
            reply = llm.chat(messages, max_tokens=200)
    except LLMRouterError as error:
        return JsonResponse({"error": error.message}, status=error.status)
    return JsonResponse({"answer": reply.text, "tokens": reply.usage.completion_tokens})


urlpatterns = [path("ask/<model>", ask)]
app = LLMRouterWSGIMiddleware(
    get_wsgi_application(), models_dir=os.environ.get("MODELS_DIR", "models")
)
