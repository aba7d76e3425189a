"""The HTTP service: find-and-snap calls, answered now or later, and Label Studio's ML backend.

    POST /v1/snap             202 and where the job is; with ?wait=1 200 and the boxes
    GET  /v1/snap/{id}        pending, done with the boxes, or failed with the reason
    GET  /v1/model            what the export says of itself
    GET  /healthz             200, or 503 where a job takes longer than any may
    POST /predict, /setup     Label Studio
    GET  /health              Label Studio

Requests are read in the event loop, checked in threads of its pool, and snapped by one worker. Every refusal is JSON:
`{"error": {"code": ..., "message": ...}}`.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from roiseg.errors import RoisegError
from roiseg.files import sha256_json
from roiseg.snap.asked import FORM_SCHEMA, Asked, SnapBody, read_asked
from roiseg.snap.bodies import FORM, JSON, Form, read_json, read_json_or_form
from roiseg.snap.jobs import Job, Jobs, Result, Work, as_refusal
from roiseg.snap.label_studio import predict, read_pages
from roiseg.snap.limits import Budget, Limits, Ticket
from roiseg.snap.pictures import ImageFolder, read_pixels
from roiseg.snap.snapping import Snaps, plain

Body = TypeVar("Body")

SNAP_DOCUMENT = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": SnapBody.model_json_schema()}, FORM: {"schema": FORM_SCHEMA}},
    }
}
"""Bodies are read by hand, to be cut off in time, so OpenAPI is told of them by hand."""


class SnapService:
    """The answers to all calls; `create_app` puts them under their addresses."""

    def __init__(self, snapper: Snaps, folder: ImageFolder | None, limits: Limits) -> None:
        """Start the worker.

        Args:
            snapper: the model, which nobody else may use from now on.
            folder: images that requests may name; None: they must send them.
            limits: of requests.
        """
        self._snapper, self._folder, self._limits = snapper, folder, limits
        self.budget, self.jobs = Budget(limits.held_bytes), Jobs(limits)
        self._version = f"roiseg-snapper-{sha256_json(dict(snapper.metadata))[:12]}"

    async def snap(self, request: Request, *, wait: bool = False) -> JSONResponse:
        """Snap rough boxes to the objects of an image."""
        job = await self._accept(request, read_json_or_form, self._plan_snap)
        if wait:
            return JSONResponse({"id": job.id, "status": "done", "result": await self._outcome(job)})
        return JSONResponse({"id": job.id, "status": "pending"}, 202, {"Location": f"/v1/snap/{job.id}"})

    async def job(self, job_id: str) -> JSONResponse:
        """What became of a job."""
        job = self.jobs.get(job_id)
        if job.error is not None:
            return JSONResponse({"id": job.id, "status": "failed", **_error(job.error.code, str(job.error))})
        if job.result is None:
            return JSONResponse({"id": job.id, "status": "pending"}, headers={"Retry-After": "1"})
        return JSONResponse({"id": job.id, "status": "done", "result": job.result})

    async def model(self) -> JSONResponse:
        """What the export says of itself."""
        return JSONResponse({"version": self._version, "metadata": dict(self._snapper.metadata)})

    async def healthz(self) -> JSONResponse:
        """Whether requests are answered."""
        late = self.jobs.is_late
        return JSONResponse({"status": "stuck" if late else "ok", "unfinished": self.jobs.unfinished}, 503 if late else 200)

    async def predict(self, request: Request) -> JSONResponse:
        """Label Studio: snap the rectangles of tasks."""
        return JSONResponse(await self._outcome(await self._accept(request, read_json, self._plan_predict)))

    async def setup(self, request: Request) -> JSONResponse:
        """Label Studio: it connects; nothing of what it tells is needed, its token least of all."""
        with ExitStack() as stack:
            ticket = self.budget.ticket()
            stack.callback(ticket.release)
            await read_json(request, self._limits, ticket)
        return JSONResponse({"model_version": self._version})

    async def health(self) -> JSONResponse:
        """Label Studio: it asks whether somebody is there."""
        return JSONResponse({"status": "UP", "model_class": "RoisegSnapper"})

    async def _accept(
        self, request: Request, read: Callable[[Request, Limits, Ticket], Awaitable[Body]], plan: Callable[[Body], Work]
    ) -> Job:
        """Read, check and queue a request."""
        ticket = self.budget.ticket()
        with ExitStack() as stack:
            stack.callback(ticket.release)
            body = await read(request, self._limits, ticket)
            # Here already, and not only in the end: what can't be queued isn't worth checking.
            self.jobs.check_room()
            work = await asyncio.to_thread(plan, body)
            job = self.jobs.submit(work, ticket.release)
            stack.pop_all()
        return job

    async def _outcome(self, job: Job) -> Result:
        """Wait for a job that nobody else will ask for."""
        settled = asyncio.wrap_future(job.settled)
        await asyncio.wait([settled], timeout=max(job.deadline - time.monotonic(), 0))
        self.jobs.give_up(job)
        self.jobs.forget(job)
        if job.result is None:
            raise job.error or RuntimeError("a job was settled without result or error")
        return job.result

    def _plan_snap(self, body: bytes | Form) -> Work:
        asked = read_asked(body, self._folder, self._limits)
        return lambda: self._snap(asked)

    def _plan_predict(self, body: bytes) -> Work:
        pages = read_pages(body, self._folder, self._limits)
        return lambda: predict(pages, self._snapper, self._limits, self._version)

    def _snap(self, asked: Asked) -> Result:
        """In the worker: one request."""
        pixels = read_pixels(asked.picture, self._limits)
        (encoded,) = self._snapper.encode([pixels])
        boxes = self._snapper.snap_encoded(encoded, asked.boxes_image, "boxes", buffer=asked.buffer)
        return {"image": {"width": pixels.shape[1], "height": pixels.shape[0]}, "boxes": [plain(box) for box in boxes]}


def create_app(snapper: Snaps, folder: ImageFolder | None, limits: Limits) -> FastAPI:
    """The service as an ASGI application; its worker ends with it.

    Args:
        snapper: see `SnapService`.
        folder: see `SnapService`.
        limits: see `SnapService`.
    """
    service = SnapService(snapper, folder, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.jobs.stop)

    # No pages of documentation: they would load scripts from elsewhere. /openapi.json is there.
    app = FastAPI(title="roiseg snapper", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_api_route("/v1/snap", service.snap, methods=["POST"], openapi_extra=SNAP_DOCUMENT)
    app.add_api_route("/v1/snap/{job_id}", service.job, methods=["GET"])
    app.add_api_route("/v1/model", service.model, methods=["GET"])
    app.add_api_route("/healthz", service.healthz, methods=["GET"])
    app.add_api_route("/predict", service.predict, methods=["POST"])
    app.add_api_route("/setup", service.setup, methods=["POST"])
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_exception_handler(RoisegError, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return app


def make_server(app: FastAPI, host: str, port: int, limits: Limits) -> uvicorn.Server:
    """The server of an application; `run` serves until SIGINT or SIGTERM, then finishes what it has begun.

    Args:
        app: see `create_app`.
        host: address to listen on.
        port: 0 for any that is free.
        limits: `connections` and `timeout_s` are used.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=math.ceil(limits.timeout_s),
    )
    return uvicorn.Server(config)


def _error(code: str, message: str) -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message}}


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """A fault that roiseg names."""
    refusal = as_refusal(error)
    headers = {} if refusal.retry_s is None else {"Retry-After": str(refusal.retry_s)}
    return JSONResponse(_error(refusal.code, str(refusal)), refusal.status, headers)


async def _not_found(_: Request, error: Exception) -> JSONResponse:
    """A fault of addresses, methods and forms, which Starlette names."""
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse(_error("http", str(error.detail)), error.status_code, error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """A fault of the query, which FastAPI names."""
    if not isinstance(error, RequestValidationError):
        raise error
    faults = "; ".join(f"{'.'.join(str(part)[:40] for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5])
    return JSONResponse(_error("invalid", faults), 422)


async def _failed(_: Request, __: Exception) -> JSONResponse:
    """A fault of the service itself: the log has it, the client needn't."""
    return JSONResponse(_error("internal", "the service failed at this request; its log says why"), 500)
