"""Build the web application: ``/predict``, ``/model``, ``/health`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from swinv2_mm.datasets.files import MAX_IMAGE_BYTES
from swinv2_mm.datasets.image_files import ImageLimits, UploadLimits, decode_image
from swinv2_mm.errors import UserError
from swinv2_mm.inference import Prediction, SwinV2Inferencer
from swinv2_mm.inference.output_folder import encode_jpeg
from swinv2_mm.inference.preparation import LoadedInput

from .batching import Batcher
from .metrics import Metrics
from .refusals import RateLimiter, Refusal
from .uploads import FIELD, read_upload
from .web_packages import fastapi

# Threads that decode images, and draw and encode predictions.
_NUM_THREADS = 2
_DRAWN_THRESHOLD = 0.3
_CLIENT_GONE = 499
_RETRY_S = 1


@dataclass(frozen=True)
class ServerSettings:
    """How requests are batched and limited.

    Attributes:
        batch_size: Most images that go through the model together.
        max_wait_s: Longest wait of an image for others.
        max_open: Most requests that are being read, wait or are computed; others are refused.
        requests_per_s: Most requests per second of a client; ``None``: any number.
        upload_s: Longest time of an upload.
        image: Limits of an image, checked before it is decoded.
    """

    batch_size: int = 8
    max_wait_s: float = 0.005
    max_open: int = 32
    requests_per_s: float | None = None
    upload_s: float = 30.0
    image: ImageLimits = field(default_factory=UploadLimits)


class PredictOptions(BaseModel, extra='forbid'):
    """Options of a request for a prediction."""

    score_threshold: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description='Detections below it are left out, of the visualization too '
            f'(there default {_DRAWN_THRESHOLD}).',
        ),
    ] = None
    draw: Annotated[
        bool, Field(description='Whether the answer has a visualization: a JPEG file in base64.')
    ] = False


class PredictionService:
    """Answer requests for predictions with one model.

    Args:
        inferencer: The model.
        settings: Settings of the server.
    """

    def __init__(self, inferencer: SwinV2Inferencer, settings: ServerSettings) -> None:
        self._inferencer = inferencer
        self.settings = settings
        self.num_open = 0
        self.metrics = Metrics(lambda: self.num_open)
        rate = settings.requests_per_s
        self._limiter = None if rate is None else RateLimiter(rate)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix='images')
        # Requests beyond these wait with their file, not with its pixels.
        self._decoded = asyncio.Semaphore(2 * settings.batch_size)
        self._batcher = Batcher(
            inferencer,
            max_images=settings.batch_size,
            max_wait_s=settings.max_wait_s,
            metrics=self.metrics,
        )

    @asynccontextmanager
    async def running(self, app: object) -> AsyncIterator[None]:
        """Run batches while the application lives."""
        self._batcher.start()
        try:
            yield
        finally:
            await self._batcher.stop()
            self._threads.shutdown()

    @property
    def is_alive(self) -> bool:
        """Whether batches are being run."""
        return self._batcher.is_running

    @property
    def is_full(self) -> bool:
        """Whether the next request would be refused."""
        return self.num_open >= self.settings.max_open

    async def answer(self, request: Request, options: PredictOptions) -> bytes:
        """Predict for the image in a request.

        Returns:
            The prediction as JSON.

        Raises:
            Refusal: If a limit is exceeded or there is no image.
            UserError: If the image cannot be used.
            ClientDisconnect: If nobody waits for the answer any more.
        """
        if self._limiter is not None:
            self._limiter.check(request.client.host if request.client else '')
        if self.is_full:
            raise Refusal(
                503, f'{self.num_open} requests are open, try again', retry_after_s=_RETRY_S
            )
        self.num_open += 1
        try:
            settings = self.settings
            num_bytes = settings.image.num_bytes or MAX_IMAGE_BYTES
            content = await read_upload(request, num_bytes=num_bytes, seconds=settings.upload_s)
            async with self._decoded:
                if await request.is_disconnected():
                    raise ClientDisconnect
                loaded = await self._in_thread(self._load, content)
                del content
                prediction = await self._batcher.predict(loaded)
                return await self._in_thread(self._encode, prediction, options)
        finally:
            self.num_open -= 1

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _load(self, content: bytes) -> LoadedInput:
        image = decode_image(content, limits=self.settings.image)
        return self._inferencer.prepare(image)

    def _encode(self, prediction: Prediction, options: PredictOptions) -> bytes:
        threshold = options.score_threshold
        answer = prediction.to_dict(score_threshold=threshold or 0.0)
        if options.draw:
            drawn = self._inferencer.draw(
                prediction, score_threshold=_DRAWN_THRESHOLD if threshold is None else threshold
            )
            answer['visualization'] = base64.b64encode(encode_jpeg(drawn)).decode()
        return json.dumps(answer).encode()


def build_app(
    inferencer: SwinV2Inferencer, *, settings: ServerSettings | None = None
) -> fastapi.FastAPI:
    """Build the application that serves a model.

    Args:
        inferencer: The model.
        settings: Settings of batches and limits.
    """
    service = PredictionService(inferencer, settings or ServerSettings())
    # FastAPI's documentation pages load scripts from other servers; /openapi.json does not.
    app = fastapi.FastAPI(
        title='SwinV2 predictions',
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=service.running,
    )
    app.state.service = service
    _add_errors(app)

    @app.post('/predict', openapi_extra=_REQUEST, responses={200: {'content': _JSON}})
    async def predict(
        request: Request, options: Annotated[PredictOptions, fastapi.Query()]
    ) -> Response:
        """Predict for one image: the raw body, or the file ``image`` of a form."""
        return Response(await service.answer(request, options), media_type='application/json')

    @app.get('/model')
    async def model() -> dict[str, Any]:
        """Describe the model: its task and the names of its classes by number."""
        return {'task': inferencer.task, 'classes': list(inferencer.classes.names)}

    @app.get('/health/live')
    async def live() -> Response:
        """Tell whether the server works: if not, start it again."""
        return _health(service.is_alive, service)

    @app.get('/health/ready')
    async def ready() -> Response:
        """Tell whether the next request would be taken."""
        return _health(service.is_alive and not service.is_full, service)

    @app.get('/metrics')
    async def metrics() -> Response:
        """Return metrics in the text format of Prometheus."""
        return Response(service.metrics.text(), media_type='text/plain; version=0.0.4')

    app.add_middleware(_Measured, service=service)
    return app


_JSON: dict[str, Any] = {'application/json': {}}
_BINARY = {'type': 'string', 'format': 'binary'}
_FORM = {'type': 'object', 'properties': {FIELD: _BINARY}, 'required': [FIELD]}
_REQUEST: dict[str, Any] = {
    'requestBody': {
        'required': True,
        'content': {'image/*': {'schema': _BINARY}, 'multipart/form-data': {'schema': _FORM}},
    }
}


def _health(is_well: bool, service: PredictionService) -> Response:
    content = {'status': 'ok' if is_well else 'unavailable', 'open_requests': service.num_open}
    return JSONResponse(content, status_code=200 if is_well else 503)


class _Measured:
    """Middleware that counts and times the requests for predictions."""

    def __init__(self, app: Any, *, service: PredictionService) -> None:
        self._app = app
        self._metrics = service.metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope['type'] != 'http' or scope['path'] != '/predict':
            await self._app(scope, receive, send)
            return
        status, start = 500, time.monotonic()

        async def observed(message: Any) -> None:
            nonlocal status
            status = message.get('status', status)
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            self._metrics.request(status, seconds=time.monotonic() - start)


def _add_errors(app: fastapi.FastAPI) -> None:
    """Answer every error with its status and one sentence: ``{"error": "..."}``."""

    async def refused(request: Request, error: Refusal) -> Response:
        return _error(error.status, error.message, headers=error.headers)

    async def unusable(request: Request, error: UserError) -> Response:
        return _error(422, str(error))

    async def no_such(request: Request, error: HTTPException) -> Response:
        what = f'{request.method} {request.url.path}'
        return _error(error.status_code, f'{what}: {error.detail}', headers=error.headers)

    async def invalid(
        request: Request, error: fastapi.exceptions.RequestValidationError
    ) -> Response:
        found = error.errors()[0]
        return _error(400, f'option {found["loc"][-1]}: {found["msg"]}')

    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_GONE)

    async def failed(request: Request, error: Exception) -> Response:
        return _error(500, 'the server failed on this request; its log has the reason')

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(UserError, unusable)
    app.add_exception_handler(HTTPException, no_such)
    app.add_exception_handler(fastapi.exceptions.RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, failed)


def _error(status: int, message: str, *, headers: Any = None) -> Response:
    return JSONResponse({'error': message}, status_code=status, headers=headers)
