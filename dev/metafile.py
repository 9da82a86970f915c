"""Update OpenMMLab's model lists (``configs/TASK/metafile.yml``) from the configs.

Entries are added and removed as configs come and go, and their parameters and FLOPs are measured.
Scores are written by hand and kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml
from mmengine.utils import track_iter_progress

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.complexity import measure
from swinv2_mm.analysis.input_size import input_size_px
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.cli.running import run_tool
from swinv2_mm.config.file import load_config
from swinv2_mm.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
_HEADER = """\
# dev/metafile.py writes one entry per config here, with its Parameters and FLOPs: a
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
    """Measure the cost of the model of a config.

    Args:
        config: The config.
        known_size_px: Height and width of its images, for a config that does not resize them.
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
    """Return a model list as YAML."""
    return _HEADER + yaml.safe_dump(content, sort_keys=False, width=100, default_flow_style=None)


def main() -> None:
    """Update the lists, or report those that are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('metafile', nargs='*', type=Path, help='default: all under configs/')
    parser.add_argument('--check', action='store_true', help='write nothing; fail if out of date')
    args = parser.parse_args()
    stale = []
    for path in args.metafile or sorted(ROOT.glob('configs/*/metafile.yml')):
        text = to_text(refreshed(read_metafile(path), folder=path.resolve().parent))
        if text == path.read_text():
            continue
        stale.append(str(path))
        if not args.check:
            atomic_write(path, text)
    if args.check and stale:
        raise UserError(f'out of date: {", ".join(stale)}; run dev/metafile.py')
    print(f'changed: {", ".join(stale) or "nothing"}')


if __name__ == '__main__':
    run_tool(main)
