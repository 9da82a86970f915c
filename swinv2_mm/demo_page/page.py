"""Build the page: a Gradio ``Blocks`` app that needs no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from swinv2_mm.datasets.image_files import FORMATS, ImageLimits, UploadLimits
from swinv2_mm.errors import UserError

from .appearance import CSS, HEAD, theme
from .callbacks import HIDDEN, MOST_IMAGES, Callbacks
from .model_shelf import MAX_WINDOW, ModelShelf
from .offline_gradio import gradio as gr

LIMITS = UploadLimits()
_MOST_WAITING = 8
_FOLDER = 'GRADIO_TEMP_DIR'
# Seconds after which what was uploaded and drawn is deleted, and between two looks for it.
_KEPT_S = 3600
_CHECKED_S = 600


def build_page(shelf: ModelShelf, *, limits: ImageLimits = LIMITS) -> gr.Blocks:
    """Lay out the page and connect it to the models.

    Args:
        shelf: The models.
        limits: Limits on images, checked before they are decoded.

    Returns:
        The app, with the functions ``predict`` and ``predict_all`` for ``gradio_client``.
    """
    callbacks = Callbacks(shelf, limits)
    with gr.Blocks(
        title='SwinV2: try a model', analytics_enabled=False, delete_cache=(_CHECKED_S, _KEPT_S)
    ) as page:
        gr.Markdown('# Try a model\nSwin Transformer V2. Images are deleted after an hour.')
        settings = model, _, threshold = _settings(shelf, callbacks)
        with gr.Tabs():
            with gr.Tab('One image'):
                upload = _single(page, callbacks, settings, limits)
            with gr.Tab('Several images'):
                _several(callbacks, settings)
        with gr.Accordion('The same in Python and in a shell', open=True):
            python, command = (
                # Without a language: the colours of the editor have too little contrast.
                gr.Code(
                    language=None,
                    label=language.capitalize(),
                    interactive=False,
                    wrap_lines=True,
                    elem_id=language,
                )
                for language in ('python', 'shell')
            )
        gr.on(
            [page.load, upload.change, *(setting.change for setting in settings)],
            callbacks.code,
            [upload, *settings],
            [python, command],
            api_visibility='private',
            show_progress='hidden',
            queue=False,
        )
        model.change(
            lambda number: gr.update(visible=callbacks.threshold_visibility(number)),
            model,
            threshold,
            api_visibility='private',
        )
    return page.queue(max_size=_MOST_WAITING, default_concurrency_limit=1, api_open=False)


def _settings(shelf: ModelShelf, callbacks: Callbacks) -> tuple:
    """Lay out the choice of model, window and threshold."""
    names = [(choice.name, number) for number, choice in enumerate(shelf.choices)]
    with gr.Row():
        model = gr.Dropdown(names, value=0, label='Model', scale=2, min_width=320)
        window = gr.Number(
            value=0,
            label='Window size',
            info='In tokens. 0: that of the config.',
            minimum=0,
            maximum=MAX_WINDOW,
            precision=0,
        )
        threshold = gr.Slider(
            value=0.3,
            minimum=0,
            maximum=1,
            step=0.05,
            label='Score threshold',
            info='Detections with a lower score are neither drawn nor listed.',
            visible=callbacks.threshold_visibility(0),
        )
    return model, window, threshold


def _single(
    page: gr.Blocks, callbacks: Callbacks, settings: tuple, limits: ImageLimits
) -> gr.Image:
    """Lay out the prediction for one image and connect it; returns its upload."""
    model, window, threshold = settings
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            upload = _image_upload()
            gr.Markdown(_describe(limits))
            examples = gr.Gallery(
                label='Examples from the validation set',
                columns=4,
                height='auto',
                allow_preview=False,
                interactive=False,
                buttons=[],
                visible=HIDDEN,
                elem_id='examples',
            )
            button = gr.Button('Predict', variant='primary')
        with gr.Column(scale=3, min_width=320):
            status = gr.Markdown('The result will appear here.', elem_id='status')
            picture = gr.Image(
                label='Prediction',
                interactive=False,
                buttons=['download', 'fullscreen'],
                elem_id='picture',
            )
            gr.Markdown('Click a place in the image to see the attention of the model there.')
            attention = gr.Image(
                label='Attention',
                interactive=False,
                visible=HIDDEN,
                buttons=['download', 'fullscreen'],
                elem_id='attention',
            )
            table = gr.HTML(elem_id='table')
            with gr.Row():
                picture_file = gr.DownloadButton('Save image', interactive=False)
                json_file = gr.DownloadButton('Save JSON', interactive=False)
            with gr.Accordion('JSON', open=False):
                content = gr.JSON(show_label=False)
    gr.on(
        [upload.change, model.input, window.submit, threshold.release, button.click],
        callbacks.predict,
        [upload, *settings],
        [status, picture, attention, table, picture_file, json_file, content],
        api_name='predict',
        trigger_mode='always_last',
        show_progress_on=picture,
    )
    picture.select(
        callbacks.look, [upload, model, window], [status, attention], api_visibility='private'
    )
    gr.on(
        [page.load, model.change],
        callbacks.thumbnails,
        model,
        examples,
        api_visibility='private',
        show_progress='hidden',
    )
    examples.select(callbacks.example, model, upload, api_visibility='private')
    return upload


def _several(callbacks: Callbacks, settings: tuple) -> None:
    """Lay out the prediction for several images and connect it."""
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            files = gr.File(
                file_count='multiple', label=f'Images, up to {MOST_IMAGES}', elem_id='files'
            )
            button = gr.Button('Predict all', variant='primary')
        with gr.Column(scale=3, min_width=320):
            status = gr.Markdown('The results will appear here.', elem_id='status-of-all')
            gallery = gr.Gallery(
                label='Predictions',
                columns=3,
                height='auto',
                interactive=False,
                buttons=['download', 'fullscreen'],
                elem_id='gallery',
            )
            zipped = gr.DownloadButton('Save all (zip)', interactive=False)
    button.click(
        callbacks.predict_all,
        [files, *settings],
        [status, gallery, zipped],
        api_name='predict_all',
        show_progress_on=gallery,
    )


@contextmanager
def serving(
    shelf: ModelShelf, *, host: str = '127.0.0.1', port: int = 0, limits: ImageLimits = LIMITS
) -> Iterator[str]:
    """Serve a page while the context lasts; what was uploaded and drawn is deleted at its end.

    Args:
        shelf: The models.
        host: Address to listen at. Any but a loopback address lets others in.
        port: 0 for any that is free.
        limits: See ``build_page``; files with too many bytes are refused while they arrive.

    Yields:
        The URL.

    Raises:
        UserError: If nothing can listen there.
    """
    with TemporaryDirectory(prefix='swinv2_mm-') as folder, _files_in(folder):
        page = build_page(shelf, limits=limits)
        try:
            with socket.create_server((host, port)) as probe:
                port = probe.getsockname()[1]
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                ssr_mode=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=limits.num_bytes,
                footer_links=['settings'],
                theme=theme(),
                css=CSS,
                head=HEAD,
            )
        except (OSError, OverflowError) as error:
            raise UserError(f'cannot listen at {host}:{port}: {error}') from error
        try:
            yield url
        finally:
            page.close(verbose=False)


@contextmanager
def _files_in(folder: str) -> Iterator[None]:
    """Let Gradio write to a folder."""
    before = os.environ.get(_FOLDER)
    os.environ[_FOLDER] = folder
    try:
        yield
    finally:
        os.environ.pop(_FOLDER)
        if before is not None:
            os.environ[_FOLDER] = before


def _image_upload() -> gr.Image:
    sources = ['upload', 'webcam', 'clipboard']
    upload = gr.Image(label='Image', type='filepath', sources=sources, elem_id='upload')
    # Gradio would decode the file before any of our functions sees how large the image is.
    upload.preprocess = lambda payload: payload.path if payload is not None else None
    return upload


def _describe(limits: ImageLimits) -> str:
    return (
        f'{", ".join(FORMATS)}; up to {limits.num_bytes >> 20} MB, {limits.num_pixels:,} pixels, '
        f'{limits.side_px:,} on a side'
    )
