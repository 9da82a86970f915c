"""Describe the machine of a measurement: processor, GPU, versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from swinv2_mm.core.cpu_kernels import cpu_rule

_PACKAGES = (
    'torch', 'torchvision', 'triton', 'timm', 'transformers', 'onedl-mmpretrain',
    'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmcv', 'onedl-mmengine',
)  # fmt: skip


def describe_machine(device: torch.device) -> dict[str, str | int | float]:
    """Return what a figure depends on besides the code."""
    machine: dict[str, str | int | float] = {
        'processor': _processor(),
        'cores': os.cpu_count() or 0,
        'threads': torch.get_num_threads(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'onednn_limit': os.environ.get('ONEDNN_MAX_CPU_ISA', ''),
        'cpu_kernels': cpu_rule().name,
        'system': f'{platform.system()} {platform.machine()}',
    }
    pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    machine['memory_gib'] = round(pages / 2**30, 1)
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        machine |= {
            'gpu': properties.name,
            'gpu_memory_gib': round(properties.total_memory / 2**30, 1),
            'cuda': torch.version.cuda or '',
            'tf32': torch.backends.cuda.matmul.allow_tf32,
        }
    return machine


def summarize_machine(device: torch.device) -> str:
    """Write in a line what figures depend on most: where they are from, and what runs there."""
    machine = describe_machine(device)
    if device.type == 'cuda':
        return f'{machine["gpu"]}, CUDA {machine["cuda"]}, torch {torch.__version__}'
    limit = machine['onednn_limit']
    return (
        f'{machine["processor"]}, {machine["instructions"]}'
        f'{f" (oneDNN: {limit})" if limit else ""}, {machine["threads"]} threads, '
        f'torch {torch.__version__}; kernels {machine["cpu_kernels"]}; '
        f'load {os.getloadavg()[0]:.1f}'
    )


def installed_versions() -> dict[str, str]:
    """Return the versions of everything that takes part."""
    versions = {'python': platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    """The model's name: ``platform`` knows only its family on Linux."""
    path = Path('/proc/cpuinfo')
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()
