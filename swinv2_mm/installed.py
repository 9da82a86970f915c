"""Name the distribution of a module, and what pip installs where one is missing.

Forks of the OpenMMLab packages have names of their own, and hold the same modules as upstream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import (
    PackageNotFoundError,
    distributions,
    packages_distributions,
    version,
)
from importlib.util import find_spec

from swinv2_mm.errors import MissingPackageError
from swinv2_mm.libraries import LIBRARIES

# Modules of each optional part, by the extra that brings them.
PARTS = (
    ('quickstart', ('sklearn', 'skimage', 'PIL'), 'demo'),
    ('ONNX export', ('onnx', 'onnxruntime', 'onnxscript'), 'export'),
    ('demo page', ('gradio',), 'demo_page'),
    ('server', ('fastapi', 'uvicorn', 'python_multipart', 'prometheus_client'), 'serve'),
    ('OpenVINO', ('openvino',), 'openvino'),
    ('video files', ('av',), 'video'),
    ('TensorBoard', ('tensorboard',), 'logging'),
    ('InstaBoost (HTC++)', ('instaboostfast',), 'instaboost'),
)
_FORKS = "'swinv2_mm[openmmlab]'"
# Those of the extra ``openmmlab``, with what pip calls them upstream.
_OPENMMLAB = {
    'mmengine': 'mmengine',
    'mmcv': "'mmcv-lite<2.2'",
    **{name: library.upstream for name, library in LIBRARIES.items()},
    'cv2': 'opencv-python-headless',
    'PIL': 'pillow',
    **{
        name: name
        for name in ('matplotlib', 'numpy', 'pycocotools', 'rich', 'scipy', 'torchvision', 'tqdm')
    },
}


def installed(module: str) -> str:
    """Return the distribution of a module with its version, such as ``onedl-mmcv 2.3.6``."""
    names = packages_distributions().get(module) or _by_files(module) or [module]
    try:
        return f'{names[0]} {version(names[0])}'
    except PackageNotFoundError:
        return f'no {module}'


def _by_files(module: str) -> list[str]:
    """Return what ``packages_distributions`` of Python 3.10 does not see."""
    start = f'{module}/__init__.py'
    return [
        found.metadata['Name']
        for found in distributions()
        if any(file.as_posix() == start for file in found.files or ())
    ]


def pip_line(module: str) -> str | None:
    """Return what installs a module of an extra; ``None`` for any other."""
    if module in _OPENMMLAB:
        # An environment of upstream packages stays one: forks would overwrite them.
        is_upstream = installed('mmengine').startswith('mmengine ')
        return f'pip install {_OPENMMLAB[module] if is_upstream else _FORKS}'
    extras = [extra for _, modules, extra in PARTS if module in modules]
    return f"pip install 'swinv2_mm[{extras[0]}]'" if extras else None


def missing_package(error: ImportError) -> str | None:
    """Return what to install where an import has failed; ``None`` for a mistake in the code."""
    if 'libGL' in str(error):
        return (
            f'OpenCV does not load ({error}); take the build that needs no display: pip uninstall '
            '-y opencv-python opencv-python-headless && pip install opencv-python-headless'
        )
    module = (error.name or '').partition('.')[0]
    line = pip_line(module)
    return f'{module} is not installed: {line}' if line and find_spec(module) is None else None


@contextmanager
def named_if_missing() -> Iterator[None]:
    """Name the package, and the line for pip, where an import fails because one is missing.

    Raises:
        MissingPackageError: If a package of an extra is not installed, or does not load.
    """
    try:
        yield
    except ImportError as error:
        if message := missing_package(error):
            raise MissingPackageError(message, name=error.name) from error
        raise
