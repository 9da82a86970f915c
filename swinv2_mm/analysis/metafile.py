"""Model lists in OpenMMLab's format (``metafile.yml``), with figures measured from the configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from mmengine.utils import track_iter_progress

from swinv2_mm.config.file import load_config
from swinv2_mm.errors import UserError

from .complexity import measure
from .input_size import input_size_px

_HEADER = """\
# tools/analysis/metafile.py writes one entry per config here, with its Parameters and FLOPs: a
# multiply-accumulate is one FLOP, all that runs at Input Size (height, width) is counted, a
# two-stage detector with as many proposals and masks as its test settings keep. Everything else
# is written by hand and kept. A score is published (by others, who are named) or measured (by
# this project, with a log); an entry without Results has neither.
"""


def read_metafile(path: Path) -> dict:
    """Read a model list.

    Raises:
        UserError: If the file is not a list of models in YAML.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f'{path}: {" ".join(str(error).split())}') from error
    if not isinstance(content, dict) or not isinstance(content.get('Models'), list):
        raise UserError(f'{path} has no list under Models')
    return content


def measured_metadata(config: Path, *, known_size_px: Sequence[int] | None = None) -> dict:
    """Measure what the entry of a config says about its cost.

    Args:
        config: The config.
        known_size_px: Height and width of its images, for a config that does not say: one whose
            data set is taken at the size it has.
    """
    cfg = load_config(str(config))
    size_px = input_size_px(cfg, known_size_px)
    report = measure(cfg.model, scope=cfg.default_scope, size_px=size_px, with_memory=False)
    return {'Parameters': report.params, 'FLOPs': report.macs, 'Input Size': list(size_px)}


def refreshed(content: dict, *, folder: Path) -> dict:
    """Return a model list that has one entry per config of ``folder``, freshly measured.

    Args:
        content: The list so far.
        folder: Where the configs lie: configs/TASK in a repository, to which paths in the list
            are relative.
    """
    known = {entry.get('Config'): entry for entry in content['Models']}
    collection = content['Collections'][0]['Name']
    root = folder.parents[1]
    models = []
    for config in track_iter_progress(sorted(folder.glob('*.py'))):
        name = config.relative_to(root).as_posix()
        blank = {'Name': config.stem, 'In Collection': collection, 'Config': name, 'Metadata': {}}
        entry = known.get(name, blank)
        size_px = entry['Metadata'].get('Input Size')
        entry['Metadata'] = {
            **entry['Metadata'],
            **measured_metadata(config, known_size_px=size_px),
        }
        models.append(entry)
    return {**content, 'Models': models}


def to_text(content: dict) -> str:
    """Write a model list as YAML."""
    return _HEADER + yaml.safe_dump(content, sort_keys=False, width=100, default_flow_style=None)
