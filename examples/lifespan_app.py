"""A FastAPI app that runs the router in its lifespan, beside what it starts itself.

Run:  MODELS_DIR=models uvicorn --app-dir examples --port 8080 lifespan_app:app
Ask:  curl localhost:8080/v1/models
      curl 'localhost:8080/ask/guide?question=What+is+a+lease'
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request

from llm_router_mw import LLMRouterApp, LLMRouterError, Router, RouterContract, get_router
from llm_router_mw.lifespan import compose_lifespans, llm_lifespan

LLMs = Annotated[RouterContract, Depends(get_router)]
router = Router(models_dir=os.environ.get("MODELS_DIR", "models"))


@asynccontextmanager
async def notebook(app: FastAPI) -> AsyncIterator[dict[str, list[str]]]:
    """Stands for what the app starts itself; the router is up before it, and down after it."""
    yield {"notes": [model.id for model in get_router(app).models()]}


app = FastAPI(lifespan=compose_lifespans(llm_lifespan(router), notebook))


@app.get("/ask/{model}")
async def ask(model: str, question: str, request: Request, llms: LLMs) -> dict[str, str | int]:
    """Let a model answer, and note the question."""
    request.state.notes.append(question)
    try:
        async with llms.acquire(model) as llm:
            reply = await llm.chat([{"role": "user", "content": question}], max_tokens=200)
    except LLMRouterError as error:
        raise HTTPException(error.status, error.message) from error
    return {"answer": reply.text, "notes": len(request.state.notes)}


app.mount("/", LLMRouterApp(router=router))  # last: it answers what the app does not
