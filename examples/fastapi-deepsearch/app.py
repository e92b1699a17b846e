"""A deep search that streams its answer: an ordinary FastAPI service, with not one line about ssegate in it.

    pip install -r requirements.txt
    uvicorn app:app --port 8000

POST /deepsearch    streams the steps of a search as Server-Sent Events, then [DONE]
GET  /events        a feed for a browser's EventSource: ?n=10&interval_ms=100&ids=true
GET  /runs          how often each of them ran, and how it ended

Environment: PING, seconds between heartbeats (15); STEP_MS, milliseconds that one step of a search takes (200).
"""

import asyncio
import json
import os
import time
from collections import Counter
from contextlib import contextmanager
from typing import Annotated

from fastapi import FastAPI, Header, Query
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

PING = float(os.environ.get("PING", "15"))
STEP_MS = int(os.environ.get("STEP_MS", "200"))

app = FastAPI(title="deepsearch")


class Runs:
    """Counts what one endpoint was asked to do. One event loop, so no lock."""

    def __init__(self):
        self.started = self.finished = self.cancelled = 0
        self.requests = Counter()  # by request id
        self.last_event_id = None  # as the newest request sent it

    @contextmanager
    def run(self, request_id: str, last_event_id: str | None):
        self.started += 1
        self.requests[request_id] += 1
        self.last_event_id = last_event_id
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):  # the client is gone
            self.cancelled += 1
            raise
        self.finished += 1

    def report(self):
        return {
            "started": self.started,
            "running": self.started - self.finished - self.cancelled,
            "finished": self.finished,
            "cancelled": self.cancelled,
            "requests": self.requests,
            "last_event_id": self.last_event_id,
        }


runs = {"deepsearch": Runs(), "events": Runs()}

LastEventID = Annotated[str | None, Header()]


class DeepSearchRequest(BaseModel):
    query: str
    request_id: str = ""
    max_loop: int = Field(default=3, ge=0)
    search_engines: list[str] = ["web"]
    stream: bool = True
    stream_mode: str = "all"  # or "final": without the intermediate results


class DeepSearch:
    def __init__(self, engines: list[str]):
        self.engines = engines

    async def run(self, query: str, request_id: str, max_loop: int = 3, stream_mode: str = "all"):
        def message(kind, data):
            return json.dumps(
                {"type": kind, "data": data, "requestId": request_id, "timestamp": time.time()},
                ensure_ascii=False,
            )

        yield message("status", "开始搜索...")
        found = []
        for loop in range(max_loop):
            yield message("progress", f"执行第{loop + 1}轮搜索...")
            found += await self.search_step(query, loop)
            if stream_mode in ("all", "intermediate"):
                yield message("intermediate", found[-len(self.engines):])
        yield message("final", {"query": query, "results": found})

    async def search_step(self, query: str, loop: int):
        await asyncio.sleep(STEP_MS / 1000)
        return [f"{engine}: {query} #{loop + 1}" for engine in self.engines]


@app.post("/deepsearch")
async def post_deepsearch(body: DeepSearchRequest, last_event_id: LastEventID = None):
    chunks = DeepSearch(engines=body.search_engines).run(
        query=body.query,
        request_id=body.request_id,
        max_loop=body.max_loop,
        stream_mode=body.stream_mode,
    )
    if not body.stream:
        with runs["deepsearch"].run(body.request_id, last_event_id):
            return [json.loads(chunk) async for chunk in chunks][-1]

    async def _stream():
        with runs["deepsearch"].run(body.request_id, last_event_id):
            async for chunk in chunks:
                yield ServerSentEvent(data=chunk)
            yield ServerSentEvent(data="[DONE]")

    return EventSourceResponse(
        _stream(),
        ping_message_factory=lambda: ServerSentEvent(data="heartbeat"),
        ping=PING,
    )


@app.get("/events")
async def get_events(
    n: Annotated[int, Query(ge=0)] = 10,
    interval_ms: Annotated[int, Query(ge=0)] = 100,
    ids: bool = False,
    request_id: str = "",
    last_event_id: LastEventID = None,
):
    """n numbered events. With ids=true each has an id, and the feed goes on after the id that a client comes back with."""
    first = 1
    if ids and last_event_id is not None and last_event_id.isdecimal():
        first = int(last_event_id) + 1

    async def _stream():
        with runs["events"].run(request_id, last_event_id):
            for i in range(first, n + 1):
                yield ServerSentEvent(data=json.dumps({"n": i}), id=str(i) if ids else None)
                await asyncio.sleep(interval_ms / 1000)

    return EventSourceResponse(_stream(), ping=PING)  # pings with comments, as sse-starlette does by itself


@app.get("/runs")
async def get_runs():
    return {name: r.report() for name, r in runs.items()}
