"""Package metadata; the requirement ranges live in ``requirements/``."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """Read ``requirements/<name>.txt`` without comments and blank lines."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in map(str.strip, lines) if line and not line.startswith('#')]


def version() -> str:
    """Read the version without importing the package."""
    for line in (ROOT / 'swinv2_mm' / '__init__.py').read_text().splitlines():
        if line.startswith('__version__'):
            return line.split("'")[1]
    raise RuntimeError('swinv2_mm/__init__.py has no __version__ line')


OPTIONAL = ('browser', 'demo_page', 'export', 'video', 'logging', 'docs')
NAMES = ('openmmlab', 'demo', 'instaboost', *OPTIONAL, 'test')
EXTRAS = {name: requirements(name) for name in NAMES}

setup(
    name='swinv2_mm',
    version=version(),
    description='Swin Transformer V2 for OpenMMLab: detection, segmentation, classification',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['swinv2_mm', 'swinv2_mm.*']),
    package_data={
        'swinv2_mm': ['py.typed'],
        'swinv2_mm.checkpoint': ['imagenet22k_to_1k.txt'],
        'swinv2_mm.report': ['page.html'],
    },
    entry_points={'console_scripts': ['swinv2-mm = swinv2_mm.cli.dispatch:main']},
    install_requires=requirements('core'),
    extras_require={
        **EXTRAS,
        'all': EXTRAS['openmmlab'] + EXTRAS['demo'] + EXTRAS['instaboost'],
        # Optional parts are tested too.
        'test': [line for name in (*OPTIONAL, 'test') for line in EXTRAS[name]],
    },
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
    ],
)
