"""A Flask app with the router in front, served by waitress, and using a model itself.

Run:  MODELS_DIR=models PYTHONPATH=examples waitress-serve --listen=127.0.0.1:8080 flask_app:server
Ask:  curl localhost:8080/v1/models
      curl 'localhost:8080/ask/guide?question=What+is+a+lease'
"""

import os

from flask import Flask, Response, jsonify, request

from llm_router_mw import LLMRouterError, LLMRouterWSGIMiddleware, get_sync_router

app = Flask(__name__)


@app.get("/ask/<model>")
def ask(model: str) -> Response:
    """Let a model answer; the facade has the router's verbs, without ``await``."""
    with get_sync_router(request).acquire(model) as llm:
        reply = llm.chat([{"role": "user", "content": request.args["question"]}], max_tokens=200)
    return jsonify(answer=reply.text, tokens=reply.usage.completion_tokens)


@app.errorhandler(LLMRouterError)
def refuse(error: LLMRouterError) -> tuple[Response, int]:
    """Answer with what the router's error says."""
    return jsonify(error=error.message), error.status


server = LLMRouterWSGIMiddleware(app, models_dir=os.environ.get("MODELS_DIR", "models"))
