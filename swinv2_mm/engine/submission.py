"""Write result files for an evaluation server, from a test set without annotations."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import METRICS

from swinv2_mm.config.datasets import innermost_datasets, type_name
from swinv2_mm.errors import UserError


def write_submission_only(cfg: Config, folder: Path) -> None:
    """Have the metrics of a config write result files, and nothing read annotations.

    mmdet writes COCO's JSON (boxes ``predictions.bbox.json``, masks ``predictions.segm.json``,
    panoptic ``predictions.panoptic.json`` beside a folder of PNG files); mmseg one PNG per image.
    The annotation file of a COCO-format set only needs its ``images`` and ``categories``.

    Args:
        cfg: A whole config; its test data and evaluator are changed.
        folder: Receives the files.

    Raises:
        UserError: If a metric cannot.
    """
    datasets = list(innermost_datasets(cfg.test_dataloader.dataset))
    for dataset in datasets:
        if 'pipeline' in dataset:
            dataset.pipeline = [t for t in dataset.pipeline if not _reads_annotations(t)]
        prefix = dataset.get('data_prefix')
        if isinstance(prefix, dict):
            for key in ('seg_map_path', 'seg'):
                prefix.pop(key, None)
    several = isinstance(cfg.test_evaluator, (list, tuple))
    metrics = cfg.test_evaluator if several else [cfg.test_evaluator]
    for metric in metrics:
        arguments = _arguments(metric['type'], cfg.get('default_scope'))
        if 'format_only' not in arguments:
            raise UserError(
                f'--format-only: {metric["type"]} writes no files for a server; --out FILE.npz '
                'writes the predictions'
            )
        metric['format_only'] = True
        if 'output_dir' in arguments:
            metric['output_dir'] = str(folder)
        else:
            metric['outfile_prefix'] = str(folder / 'predictions')
        # Where the data set has been changed to a test set, its names and ids count. Two metrics,
        # of panoptic segments and of instances, have files in formats of their own.
        alone = len(metrics) == len(datasets) == 1
        if 'ann_file' in arguments and alone and datasets[0].get('ann_file'):
            root = datasets[0].get('data_root') or ''
            metric['ann_file'] = os.path.join(root, datasets[0]['ann_file'])
    folder.mkdir(parents=True, exist_ok=True)


def _reads_annotations(transform: dict) -> bool:
    name = type_name(transform)
    return name.startswith('Load') and name.endswith('Annotations')


def _arguments(name: str, scope: str | None) -> set[str]:
    with METRICS.switch_scope_and_registry(scope) as registry:
        found = registry.get(name)
    if found is None:
        raise UserError(f'test_evaluator: there is no metric {name}')
    return set(inspect.signature(found.__init__).parameters)
