"""A FastAPI app with the router in front and a streamed page of its own.

Run:  MODELS_DIR=models uvicorn --app-dir examples --port 8080 fastapi_app:app
Ask:  curl localhost:8080/v1/models
      curl -N 'localhost:8080/tell/guide?question=What+is+a+lease'
"""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from llm_router_mw import ChatTask, LLMRouterError, LLMRouterMiddleware, RouterContract, get_router
from llm_router_mw.protocols import LeaseContract
from llm_router_mw.types import ContentDelta

app = FastAPI()
app.add_middleware(LLMRouterMiddleware, models_dir=os.environ.get("MODELS_DIR", "models"))


async def leased(
    model: str, router: Annotated[RouterContract, Depends(get_router)]
) -> AsyncIterator[LeaseContract]:
    """Hold the model that the path names until the answer has been sent."""
    async with router.acquire(model) as llm:
        yield llm


@app.get("/tell/{model}")
async def tell(question: str, llm: Annotated[LeaseContract, Depends(leased)]) -> StreamingResponse:
    """Stream the answer as plain text."""
    task = ChatTask(messages=({"role": "user", "content": question},), max_tokens=200)
    deltas = llm.stream(task)
    pieces = (delta.text async for delta in deltas if isinstance(delta, ContentDelta))
    return StreamingResponse(pieces, media_type="text/plain")


@app.exception_handler(LLMRouterError)
async def refuse(request: Request, error: LLMRouterError) -> JSONResponse:
    """Answer with what the router's error says: an unknown model is a 404."""
    return JSONResponse({"error": error.message}, error.status)
