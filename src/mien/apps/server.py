"""mien serve: the reader behind HTTP, with the page in front. One application, its routes, its description as OpenAPI."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from litestar import Litestar, MediaType, Request, Response, WebSocket, delete, get, post, websocket
from litestar.datastructures import State, UploadFile
from litestar.exceptions import ClientException, HTTPException, WebSocketDisconnect
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.params import Parameter
from litestar.response import File, Stream

import mien
from mien.apps.batching import Batcher
from mien.apps.gate import Gate, log
from mien.apps.jobs import FORMS, Jobs, Opening, clip_kind, mark
from mien.apps.measures import Measures
from mien.apps.page import page_files, site
from mien.apps.records import Health, JobRecord, Problem
from mien.apps.settings import Settings
from mien.errors import ImageError, MienError
from mien.faces import Face, ImageRecord, face_record
from mien.runtime.read import Reader
from mien.runtime.track import OverlapTracker
from mien.spec import ModelSpec

__all__ = ["create_app"]

_PICTURES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff")
_CLIPS = ("video/mp4", "video/webm", "video/x-matroska", "video/quicktime", "video/x-msvideo", "video/ogg", "image/gif")
_BYTES = "application/octet-stream"
_KINDS = {
    ".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html", ".css": "text/css",
    ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".txt": "text/plain", ".json": "application/json",
}  # fmt: skip
_PART = 65_536  # bytes of a file that are sent at once
_FORM = "multipart/form-data"
_DESCRIPTION = """Reads faces: apparent expression, valence and arousal. Pictures are read in memory (files
of a form above 1 MB lie in nameless temporary files until they are answered), clips in a temporary folder that goes with
the server; nothing else is kept, and nothing is sent on. Boxes and landmarks are in pixels of the
picture; valence and arousal run from -1 to 1. Every refusal that a route gives is a Problem."""


@dataclass
class Serving:
    """What the routes share."""

    reader: Reader
    settings: Settings
    measures: Measures
    batcher: Batcher
    jobs: Jobs | None = None
    gate: Gate | None = None
    sockets: int = 0
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # with their entity tags


def _problems(*codes: int) -> dict[int, ResponseSpec]:
    words = {
        400: "not readable, too many pixels, or a wrong value", 401: "a key is needed", 403: "not from here", 404: "no such job",
        408: "did not arrive in time", 409: "not done yet", 413: "too large", 415: "not a type that is read",
        429: "too much at once", 500: "the model failed", 503: "took too long",
        507: "no room in the temporary folder",
    }  # fmt: skip
    return {code: ResponseSpec(Problem, generate_examples=False, description=words[code]) for code in codes}


_BINARY = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)


@dataclass
class _TakesPictures(Operation):
    def __post_init__(self) -> None:
        files = Schema(type=OpenAPIType.ARRAY, items=_BINARY, min_items=1)
        form = Schema(type=OpenAPIType.OBJECT, properties={"images": files}, required=["images"])
        content = {kind: OpenAPIMediaType(schema=_BINARY) for kind in (*_PICTURES, _BYTES)}
        self.request_body = RequestBody(content={**content, _FORM: OpenAPIMediaType(schema=form)}, required=True)


@dataclass
class _TakesAClip(Operation):
    def __post_init__(self) -> None:
        content = {kind: OpenAPIMediaType(schema=_BINARY) for kind in (*_CLIPS, _BYTES)}
        self.request_body = RequestBody(content=content, required=True)


@dataclass
class _GivesATable(Operation):
    def __post_init__(self) -> None:
        text = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
        self.responses = {
            **(self.responses or {}),
            "200": OpenAPIResponse("The table.", content=dict.fromkeys(FORMS.values(), text)),
        }


def _kind(request: Request[Any, Any, Any]) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _pictures(request: Request[Any, Any, Any], settings: Settings) -> list[tuple[str | None, bytes]]:
    """The name (if it has one) and the bytes of each picture in a request."""
    kind = _kind(request)
    if kind == _FORM:
        try:
            form = await request.form()
        except (UnicodeDecodeError, LookupError) as error:
            raise HTTPException(
                status_code=400, detail="the form holds a text in no charset that is known here; send texts as UTF-8"
            ) from error
        except ClientException as error:
            if error.status_code == 413 or error.detail != RequestEntityTooLarge.detail:
                raise
            detail = f"the form has too many parts; send at most {settings.max_images} pictures at once"
            raise HTTPException(status_code=413, detail=detail) from error
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        pictures: list[tuple[str | None, bytes]] = [(item.filename, await item.read()) for item in files]
        if not pictures:
            raise HTTPException(status_code=400, detail="the form holds no file; send each picture as a file")
    elif kind.startswith("image/") or kind == _BYTES:
        pictures = [(None, await request.body())]
    else:
        raise HTTPException(status_code=415, detail=f"{kind or 'no type'}: send image/..., {_BYTES} or {_FORM}")
    if len(pictures) > settings.max_images:
        raise HTTPException(status_code=413, detail=f"{len(pictures)} pictures; at most {settings.max_images} at once")
    return pictures


@post(
    "/predict",
    status_code=200,
    operation_class=_TakesPictures,
    responses=_problems(400, 401, 403, 408, 413, 415, 429, 500, 503, 507),
    summary="The faces of one picture or several",
    description="One record for each picture, in order. Send one picture as the body, or several as files of a form.",
)
async def predict(request: Request[Any, Any, Any], state: State) -> list[ImageRecord]:
    serving: Serving = state.serving
    seconds = serving.settings.seconds
    try:
        async with asyncio.timeout(seconds):
            pictures = await _pictures(request, serving.settings)
    except TimeoutError as error:
        raise HTTPException(status_code=408, detail=f"the pictures did not arrive within {seconds:g} s") from error
    try:
        async with asyncio.timeout(seconds):
            found = await _read_all(serving, pictures)
    except TimeoutError as error:
        raise HTTPException(
            status_code=503, detail=f"not read within {seconds:g} s; the server has too much to do"
        ) from error
    return [_record(name, faces) for (name, _), faces in zip(pictures, found, strict=True)]


async def _read_all(serving: Serving, pictures: list[tuple[str | None, bytes]]) -> list[list[Face]]:
    """The faces of each picture. When the first one fails the others are given up; none is left in work."""
    reading = [asyncio.create_task(_read(serving, name, data)) for name, data in pictures]
    try:
        return await asyncio.gather(*reading)
    finally:
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)


async def _read(serving: Serving, name: str | None, data: bytes) -> list[Face]:
    try:
        return await serving.batcher(data)
    except ImageError as error:
        raise ImageError(f"{name}: {error}" if name else str(error)) from error


def _record(
    image: str | None, faces: list[Face], index: int | None = None, seconds: float | None = None
) -> ImageRecord:
    return ImageRecord(image, tuple(map(face_record, faces)), index, seconds)


@post(
    "/watch",
    status_code=202,
    operation_class=_TakesAClip,
    responses=_problems(400, 401, 403, 408, 413, 415, 429, 507),
    summary="Read a clip in the background",
    description="The body is the video file. Ask /watch/{id} how far it is, then fetch /watch/{id}/table.",
)
async def watch(
    request: Request[Any, Any, Any],
    state: State,
    every: Annotated[int, Parameter(ge=1, le=1000, description="Read each Nth frame.")] = 1,
) -> JobRecord:
    serving: Serving = state.serving
    settings, jobs = serving.settings, serving.jobs
    assert jobs is not None
    kind = _kind(request)
    if not (kind.startswith("video/") or kind in (_BYTES, "image/gif")):
        raise HTTPException(
            status_code=415, detail=f"{kind or 'no type'}: send the file itself, as video/... or {_BYTES}"
        )
    if jobs.pending >= settings.jobs:
        raise HTTPException(
            status_code=429,
            detail=f"{jobs.pending} clips wait already, the most there may be",
            headers={"retry-after": "30"},
        )
    with jobs.arrival() as (name, place):
        await _save(request, place, settings)
        return jobs.add(name, every)


async def _save(request: Request[Any, Any, Any], place: Path, settings: Settings) -> None:
    """Write a clip as it arrives; each part must come in time, and so must the whole."""
    parts = aiter(request.stream())
    until = time.monotonic() + settings.upload_seconds
    with place.open("wb") as file:
        while True:
            left = until - time.monotonic()
            try:
                async with asyncio.timeout(min(left, settings.seconds)):
                    part = await anext(parts, None)
            except TimeoutError as error:
                raise HTTPException(status_code=408, detail=_late(left, settings)) from error
            if part is None:
                break
            await asyncio.to_thread(file.write, part)
    with place.open("rb") as file:
        if not clip_kind(file.read(16)):
            raise HTTPException(
                status_code=400, detail="not a video of a known form; send MP4, WebM, MKV, MOV, AVI, Ogg or GIF"
            )


def _late(left: float, settings: Settings) -> str:
    """Why a clip is waited for no longer. left: seconds that the whole still had when its next part was asked for."""
    if left > settings.seconds:
        return f"nothing came for {settings.seconds:g} s"
    return f"the clip did not arrive within {settings.upload_seconds:g} s; cut it, make it smaller, or send it faster"


def _job(serving: Serving, name: str) -> JobRecord:
    assert serving.jobs is not None
    job = serving.jobs.get(name)
    if job is None:
        raise HTTPException(status_code=404, detail="no job of that id; finished ones are forgotten after a while")
    return job


_Id = Annotated[str, Parameter(description="The id that POST /watch gave.")]


@get("/watch/{job_id:str}", responses=_problems(400, 401, 403, 404), summary="How far a clip is read")
async def progress(state: State, job_id: _Id) -> JobRecord:
    return _job(state.serving, job_id)


@delete(
    "/watch/{job_id:str}",
    status_code=200,
    responses=_problems(400, 401, 403, 404),
    summary="Stop a job, or forget one that has ended",
)
async def cancel(state: State, job_id: _Id) -> JobRecord:
    _job(state.serving, job_id)
    return state.serving.jobs.cancel(job_id)


@get(
    "/watch/{job_id:str}/table",
    operation_class=_GivesATable,
    responses=_problems(400, 401, 403, 404, 409),
    summary="The table of a job that is done, as mien watch writes it",
    media_type="text/csv",
)
async def table(
    state: State, job_id: _Id, form: Annotated[Literal["csv", "jsonl"], Parameter(description="Its form.")] = "csv"
) -> File:
    job = _job(state.serving, job_id)
    if job.state != "done":
        raise HTTPException(
            status_code=409,
            detail=f"the job is {job.state}{f': {job.problem}' if job.problem else ''}; there is a table once it is done",
        )
    place = state.serving.jobs.table(job_id, form)
    if not place.is_file():
        raise HTTPException(
            status_code=404, detail="its table was removed from the temporary folder; send the clip again"
        )
    return File(place, chunk_size=_PART, filename=f"faces.{form}", media_type=FORMS[form])


@websocket("/frames")
async def frames(socket: WebSocket[Any, Any, Any], state: State) -> None:
    """Encoded frames in (binary messages), ImageRecords out (JSON), one for each, in order, with track
    numbers; a Problem for what is none."""
    serving: Serving = state.serving
    await socket.accept()
    if serving.sockets >= serving.settings.sockets:
        await socket.close(1013, "too many sockets are open; try again later")
        return
    serving.sockets += 1
    serving.measures.sockets.set(serving.sockets)
    try:
        await _talk(socket, serving)
    except (WebSocketDisconnect, TimeoutError):
        pass
    finally:
        serving.sockets -= 1
        serving.measures.sockets.set(serving.sockets)


async def _talk(socket: WebSocket[Any, Any, Any], serving: Serving) -> None:
    start, index, follow = time.perf_counter(), 0, OverlapTracker()
    while True:
        try:
            async with asyncio.timeout(serving.settings.seconds):
                message = await socket.receive()
        except TimeoutError:
            await socket.close(1001, f"no frame for {serving.settings.seconds:g} s")
            return
        if message["type"] != "websocket.receive":
            return
        data, seconds = message.get("bytes"), round(time.perf_counter() - start, 4)
        answer: ImageRecord | Problem
        if data is None:
            answer = Problem(415, "send each frame as a binary message: an encoded picture, such as JPEG")
        else:
            try:
                answer = _record(None, follow(await serving.batcher(data), seconds), index, seconds)
            except ImageError as error:
                answer = Problem(400, str(error))
        index += 1
        await socket.send_data(msgspec.json.encode(answer).decode())


@get("/health", security=[{}], responses=_problems(403), summary="Whether the server is up")
async def health(state: State) -> Health:
    serving: Serving = state.serving
    busy = serving.gate.busy if serving.gate else 0
    jobs = serving.jobs.pending if serving.jobs else 0
    return Health("ok", mien.__version__, serving.reader.classifier.spec.name, busy, jobs)


@get("/model", responses=_problems(401, 403), summary="What the model says of itself")
async def model(state: State) -> ModelSpec:
    return state.serving.reader.classifier.spec


@get("/metrics", media_type=MediaType.TEXT, responses=_problems(401, 403), summary="Counters, in Prometheus' text form")
async def metrics(state: State) -> Response[bytes]:
    return Response(state.serving.measures.text(), media_type="text/plain; version=0.0.4")  # Litestar adds the charset


@get(["/", "/{address:path}"], include_in_schema=False)
async def page(request: Request[Any, Any, Any], state: State, address: str = "/") -> Response[Any]:
    name = address.lstrip("/") or "index.html"
    serving: Serving = state.serving
    if name not in serving.files:
        raise HTTPException(status_code=404, detail="nothing is here; the API is described at /schema/openapi.json")
    data, tag = serving.files[name]
    headers = {
        "cache-control": "no-cache",
        "etag": tag,
    }  # kept by the browser, which asks each time whether it is the same
    if tag in request.headers.get("if-none-match", ""):
        return Response(None, status_code=304, headers=headers)
    headers["content-length"] = str(len(data))
    return Stream(_parts(data), media_type=_KINDS.get(Path(name).suffix, _BYTES), headers=headers)


def _tagged(data: bytes) -> tuple[bytes, str]:
    return data, f'"{hashlib.sha256(data).hexdigest()[:32]}"'


async def _parts(data: bytes) -> AsyncIterator[bytes]:
    """The bytes a part at a time: no more than one waits in memory for each client that is slow to take them."""
    for start in range(0, len(data), _PART):
        yield data[start : start + _PART]


def _http_problem(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    detail = error.detail
    if isinstance(error, RequestEntityTooLarge):
        detail = "more bytes than this server takes; send less, or raise --max-bytes, --max-video-bytes of `mien serve`"
    if error.status_code == 405:
        detail = f"{request.method} is not allowed here; use {(error.headers or {}).get('allow', 'another method')}"
    extra = getattr(error, "extra", None)
    if extra and isinstance(extra, list):
        detail = f"{detail}: {'; '.join(str(item.get('message', item)) for item in extra if isinstance(item, dict))}"
    return Response(Problem(error.status_code, detail), status_code=error.status_code, headers=error.headers or {})


def _our_problem(_: Request[Any, Any, Any], error: MienError) -> Response[Problem]:
    code = 400 if isinstance(error, ImageError) else 500
    return Response(Problem(code, str(error)), status_code=code)


def _system_problem(request: Request[Any, Any, Any], error: OSError) -> Response[Problem]:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return _bug(request, error)
    log.error("no room", exc_info=error)
    detail = "no room in the server's temporary folder; free some there, or set TMPDIR to another and start it again"
    return Response(Problem(507, detail), status_code=507)


def _bug(_: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.error("bug", exc_info=error)
    return Response(Problem(500, "something broke in the server; its log has the trace"), status_code=500)


def create_app(
    reader: Reader, settings: Settings, opening: Opening, model_path: Path, detector_path: Path | None
) -> Gate:
    """The application.

    opening: how the processes that read clips open the same reader.  model_path, detector_path: the files that the page
    loads; it keeps their bytes and the page's, and a clip is refused once they are replaced, so that nothing reads with another model than
    the one whose spec it says.  Start it with mien.apps.run.serve, or with any ASGI server.
    """
    measures = Measures()
    batcher = Batcher(reader, measures, settings.workers, settings.max_pixels)
    serving = Serving(reader, settings, measures, batcher)
    files = page_files(model_path, detector_path)
    models = [path for name, path in files.items() if name.startswith("models/")]
    opening = msgspec.structs.replace(opening, files={str(path): mark(path) for path in models})
    serving.files = {name: _tagged(path.read_bytes()) for name, path in files.items()}
    serving.files["page.json"] = _tagged(msgspec.json.encode(site(reader, settings.max_bytes)))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        serving.jobs = Jobs(opening, settings, measures)
        try:
            yield
        finally:
            await serving.jobs.close()
            batcher.close()

    watch.request_max_body_size = settings.max_video_bytes
    app = Litestar(
        [predict, watch, progress, cancel, table, frames, health, model, metrics, page],
        lifespan=[lifespan],
        state=State({"serving": serving}),
        request_max_body_size=settings.max_bytes,
        multipart_form_part_limit=4 * settings.max_images,
        openapi_config=_described(settings),
        exception_handlers={
            HTTPException: _http_problem,
            MienError: _our_problem,
            OSError: _system_problem,
            Exception: _bug,
        },
        logging_config=None,
    )
    routes = frozenset({"predict", "watch", "frames", "health", "model", "metrics", "schema"})
    serving.gate = Gate(app, settings, measures, routes)
    return serving.gate


def _described(settings: Settings) -> OpenAPIConfig:
    keys: dict[str, SecurityScheme | Reference] = {
        "key": SecurityScheme(type="http", scheme="bearer", description="One of MIEN_API_KEYS"),
        "header": SecurityScheme(
            type="apiKey", name="X-API-Key", security_scheme_in="header", description="The same, by a header of its own"
        ),
    }
    return OpenAPIConfig(
        title="mien",
        version=mien.__version__,
        description=_DESCRIPTION,
        path="/schema",
        render_plugins=[JsonRenderPlugin()],
        components=Components(security_schemes=keys) if settings.keys else Components(),
        security=[{"key": []}, {"header": []}] if settings.keys else None,
    )
