"""Serve the predictions of a trained model over HTTP; SIGTERM or Ctrl-C ends it.

POST an image to /predict, as the body or as the file "image" of a form, and the answer is JSON, as
in predictions.jsonl. Images of concurrent requests go through the model together. What is open
when SIGTERM arrives is still answered.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import add_predictor, call, new_parser, run_command
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config


def serve(
    cfg: str | Path | Config | None,
    weights: str | Path,
    *,
    device: str | None = None,
    window_size: int | Sequence | None = None,
    host: str = '127.0.0.1',
    port: int = 8080,
    batch_size: int = 8,
    max_wait_ms: float = 5.0,
    max_open: int = 32,
    rate: float | None = None,
    max_megabytes: float = 20.0,
    max_megapixels: float = 40.0,
    grace_s: float = 30.0,
    options: Sequence[str] = (),
) -> None:
    """Serve the predictions of a model until the process is told to stop.

    Args:
        cfg: A config file, or a config, which is not modified; ``None`` takes that of an exported
            file.
        weights: A checkpoint, weights of any layout, the name of a released model, or a file that
            ``export`` wrote.
        device: Such as ``cuda:1``; default a GPU if there is one.
        window_size: Another window than the config's, in tokens: one for all stages or one per
            stage, each N or (h, w).
        host: Address to listen at; others than 127.0.0.1 let anybody in the network use the model.
        port: 0 for any that is free.
        batch_size: Most images that go through the model together.
        max_wait_ms: Longest wait of an image for others to go with it.
        max_open: Most requests that are open; others are refused with status 503.
        rate: Most requests per second of a client, others are refused with status 429; ``None``:
            any number.
        max_megabytes: Largest image file.
        max_megapixels: Largest image.
        grace_s: Longest time that open requests are given at the end.
        options: Overrides of config entries, as ``key=value``.

    Raises:
        UserError: If the config or the weights do not fit, a package is missing, or nothing can
            listen at the address.
    """
    limits = batch_size, max_open, max_megabytes, max_megapixels, 1 if rate is None else rate
    if not all(map(math.isfinite, (*limits, max_wait_ms, grace_s))):
        raise UserError('the limits of a server are finite numbers; without --rate there is none')
    if min(limits) <= 0:
        raise UserError(
            '--batch-size, --max-open, --rate, --max-megabytes and --max-megapixels are positive'
        )
    if max_wait_ms < 0 or grace_s < 0:
        raise UserError('--max-wait-ms and --grace-s must not be negative')
    from swinv2_mm.datasets.image_files import UploadLimits
    from swinv2_mm.inference import SwinV2Inferencer
    from swinv2_mm.runtime.metadata import config_in
    from swinv2_mm.serving.app import ServerSettings, build_app
    from swinv2_mm.serving.server import listen, run_server, url_of

    listener = listen(host, port)
    with listener:
        inferencer = SwinV2Inferencer(
            config_in(weights) if cfg is None else cfg,
            weights,
            device=device,
            window_size=window_size,
            options=options,
        )
        settings = ServerSettings(
            batch_size=batch_size,
            max_wait_s=max_wait_ms / 1000,
            max_open=max_open,
            requests_per_s=rate,
            image=UploadLimits(
                num_bytes=round(max_megabytes * 1e6), num_pixels=round(max_megapixels * 1e6)
            ),
        )
        app = build_app(inferencer, settings=settings)
        print(f'{inferencer.task} at {url_of(listener)}/predict (Ctrl-C ends)', flush=True)
        run_server(app, listener, grace_s=grace_s)
        print('stopped: what was open has been answered')


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s --config CONFIG --weights CKPT
        %(prog)s --weights model.onnx --port 9000 --batch-size 1
        %(prog)s --config CONFIG --weights CKPT --host 0.0.0.0 --rate 5
        curl --data-binary @a.jpg 'http://127.0.0.1:8080/predict?score_threshold=0.5'
        """,
    )
    model = parser.add_argument_group('the model')
    add_predictor(model)
    server = parser.add_argument_group('the server')
    server.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen at; others than 127.0.0.1 let anybody in the network use the model',
    )
    server.add_argument('--port', type=int, default=8080, help='0: any free one')
    server.add_argument(
        '--batch-size', type=int, default=8, metavar='N', help='most images of a batch'
    )
    server.add_argument(
        '--max-wait-ms',
        type=float,
        default=5.0,
        metavar='MS',
        help='longest wait of an image for others to go with it',
    )
    server.add_argument(
        '--grace-s',
        type=float,
        default=30.0,
        metavar='S',
        help='longest time that open requests are given at the end',
    )
    limits = parser.add_argument_group('limits')
    limits.add_argument(
        '--max-open', type=int, default=32, metavar='N', help='most open requests; then 503'
    )
    limits.add_argument(
        '--rate',
        type=float,
        metavar='N',
        help='most requests per second of a client, then 429; default: any number',
    )
    limits.add_argument(
        '--max-megabytes', type=float, default=20.0, metavar='MB', help='largest image file'
    )
    limits.add_argument(
        '--max-megapixels', type=float, default=40.0, metavar='MP', help='largest image'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(build_parser(), argv, lambda args: call(serve, args), runs_model=True)
