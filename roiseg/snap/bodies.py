"""Bodies of requests: never more of one in memory than a request may hold, whatever its headers say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from roiseg.errors import RequestError
from roiseg.snap.limits import Limits, Ticket

JSON = "application/json"
FORM = "multipart/form-data"

JSON_VALUES = 100_000
"""Most values of a JSON body: parsed, a short one takes fifty times the bytes that it is written in."""

DRAIN_S = 2.0
"""How long the rest of a refused body is read and thrown away: a client that is still sending often doesn't read the answer."""

FIELDS = ("boxes", "buffer", "path")
"""What a form may have beside the file `image`."""

FIELD_BYTES = 1 << 20


@dataclass(frozen=True)
class Form:
    """A multipart body.

    Attributes:
        image: bytes of the file `image`; None without one.
        fields: texts of the other fields.
    """

    image: bytes | None
    fields: dict[str, str]


class _Counted:
    """A request's body as it comes in, up to its limits."""

    def __init__(self, request: Request, limits: Limits, ticket: Ticket) -> None:
        self._request, self._limits, self._ticket = request, limits, ticket
        self._count = 0
        self._ended = False

    def check_stated(self) -> None:
        """Refuse what says itself that it is too long."""
        stated = self._request.headers.get("content-length", "")
        if stated.isdecimal() and (len(stated) > 18 or int(stated) > self._limits.body_bytes):
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part, counted."""
        message = await self._next()
        size = len(message.get("body", b""))
        self._count += size
        if self._count > self._limits.body_bytes:
            raise self._too_large()
        self._ticket.take(size)
        return message

    async def drain(self) -> None:
        """Read and forget what is still coming, unless it is very long, or waits to be asked for."""
        if "expect" in self._request.headers:
            return
        left = 2 * self._limits.body_bytes
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self._ended and left > 0:
                    left -= len((await self._next()).get("body", b""))
        except TimeoutError:
            return

    async def _next(self) -> Message:
        message = await self._request.receive()
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    def _too_large(self) -> RequestError:
        return RequestError(
            f"the body has more than {self._limits.body_bytes} bytes, expected no more; scale the image down, or send fewer",
            status=413,
            code="too_large",
        )


@asynccontextmanager
async def _counted(request: Request, limits: Limits, ticket: Ticket) -> AsyncIterator[_Counted]:
    """A body to be read inside of the block; a refusal there leaves nothing on the wire that would hide the answer."""
    counted = _Counted(request, limits, ticket)
    try:
        async with asyncio.timeout(limits.timeout_s):
            yield counted
    except TimeoutError as error:
        raise RequestError(
            f"the body didn't arrive within {limits.timeout_s:g} s; send it faster, or a smaller one", status=408, code="slow"
        ) from error
    except ClientDisconnect as error:
        raise RequestError("the body ended before it was whole", status=400, code="cut_off") from error
    except (RequestError, HTTPException):
        await counted.drain()
        raise


def _kind(request: Request, allowed: tuple[str, ...]) -> str:
    """The media type of a request.

    Raises:
        RequestError: another one, or compressed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in allowed:
        raise RequestError(f"Content-Type is {kind[:80]!r}, expected {' or '.join(allowed)}", status=415, code="content_type")
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise RequestError(
            f"Content-Encoding is {coding[:80]!r}, expected none: send the body as it is", status=415, code="content_type"
        )
    return kind


async def read_json(request: Request, limits: Limits, ticket: Ticket) -> bytes:
    """A JSON body, not parsed.

    Raises:
        RequestError: another content type, too long, too slow, or too many values.
    """
    async with _counted(request, limits, ticket) as counted:
        _kind(request, (JSON,))
        return await _read_whole(request, counted)


async def read_json_or_form(request: Request, limits: Limits, ticket: Ticket) -> bytes | Form:
    """A JSON body, not parsed, or the parts of a form.

    Raises:
        RequestError: see `read_json`; or a form with other parts than expected.
        HTTPException: the form is malformed.
    """
    async with _counted(request, limits, ticket) as counted:
        if _kind(request, (JSON, FORM)) == JSON:
            return await _read_whole(request, counted)
        counted.check_stated()
        inner = Request(request.scope, counted.receive)
        async with inner.form(max_files=1, max_fields=len(FIELDS), max_part_size=FIELD_BYTES) as form:
            image, fields = None, {}
            for name, value in form.multi_items():
                if isinstance(value, UploadFile) and name == "image":
                    image = await value.read()
                elif isinstance(value, str) and name in FIELDS and name not in fields:
                    fields[name] = value
                else:
                    raise RequestError(
                        f"form field {name[:80]!r}: unexpected, twice, or a text for a file, or a file for a text; expected "
                        f"the file 'image' or the field 'path', and {', '.join(FIELDS[:2])}",
                        code="form",
                    )
            return Form(image, fields)


async def _read_whole(request: Request, counted: _Counted) -> bytes:
    counted.check_stated()
    body = bytearray()
    async with aclosing(Request(request.scope, counted.receive).stream()) as stream:
        async for part in stream:
            body += part
    if body.count(b",") > JSON_VALUES:
        raise RequestError(
            f"the JSON has more than {JSON_VALUES} values, expected no more; send it in parts", status=413, code="too_large"
        )
    return bytes(body)
