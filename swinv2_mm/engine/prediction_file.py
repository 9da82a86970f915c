"""Save the predictions of a test set to one ``.npz`` file without pickles.

Always there: ``format``, ``classes`` (names), ``images`` (M paths), ``sizes`` (M, 2), height and
width in pixels. With detections: ``offsets`` (M + 1,), the rows from ``offsets[i]`` to before
``offsets[i + 1]`` being those of image ``i`` in ``boxes`` (K, 4), corners in pixels, ``scores``
(K,) and ``labels`` (K,); with instance masks ``mask_bytes``, COCO's compressed run lengths one
after another, cut by ``mask_offsets`` (K + 1,). With label maps: ``label_map_0`` (H, W) and so on;
panoptic ones under ``panoptic_map_0``, mmdet's ``class + 1000 * instance``. With classes:
``class_scores`` (M, classes) and ``class_labels`` (M,).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from swinv2_mm.atomic_write import atomic_path

FORMAT = 'swinv2_mm predictions 1'
_MAPS = {'pred_sem_seg': 'label_map', 'pred_panoptic_seg': 'panoptic_map'}


@METRICS.register_module()
class PredictionFile(BaseMetric):
    """Collect predictions, from all processes, and write them at the end.

    Must come first among several metrics: mmdet's panoptic one changes the predictions it reads.

    Args:
        path: The file; its folders are made.
    """

    default_prefix = 'predictions'

    def __init__(self, path: str, *, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self._path = Path(path)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the predictions of a batch, compressed."""
        self.results.extend(_record(sample) for sample in data_samples)

    def compute_metrics(self, results: list[dict]) -> dict:
        """Write the file; there is nothing to measure."""
        with (
            atomic_path(self._path) as part,
            zipfile.ZipFile(part, 'w', zipfile.ZIP_DEFLATED) as archive,
        ):
            # Not numpy.savez: it wants all label maps in memory, uncompressed.
            for name, array in _arrays(results, (self.dataset_meta or {}).get('classes', ())):
                with archive.open(f'{name}.npy', 'w', force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        return {}


def read_predictions(path: str | Path) -> Iterator[dict]:
    """Yield one dictionary per image of a file that ``PredictionFile`` wrote.

    Keys: ``image``, ``size``, and of ``boxes``, ``scores``, ``labels``, ``masks`` (COCO run
    lengths), ``label_map``, ``panoptic_map``, ``class_scores``, ``class_label`` those that apply.

    Raises:
        ValueError: If it is another file.
    """
    with np.load(path, allow_pickle=False) as file:
        if 'format' not in file or str(file['format']) != FORMAT:
            raise ValueError(f'{path} is not a file of predictions')
        wanted = [n for n in file.files if not n.startswith(tuple(_MAPS.values()))]
        arrays = {name: file[name] for name in wanted}
        for i, (image, size) in enumerate(zip(arrays['images'], arrays['sizes'], strict=True)):
            record = {'image': str(image), 'size': tuple(size.tolist())}
            if 'offsets' in arrays:
                rows = slice(*arrays['offsets'][i : i + 2])
                record.update({n: arrays[n][rows] for n in ('boxes', 'scores', 'labels')})
            if 'mask_offsets' in arrays:
                ends = arrays['mask_offsets'][rows.start : rows.stop + 1]
                counts = [arrays['mask_bytes'][a:b].tobytes() for a, b in pairwise(ends)]
                record['masks'] = [{'size': list(record['size']), 'counts': c} for c in counts]
            for name in _MAPS.values():
                if f'{name}_{i}' in file:
                    record[name] = file[f'{name}_{i}']
            if 'class_scores' in arrays:
                record['class_scores'] = arrays['class_scores'][i]
                record['class_label'] = int(arrays['class_labels'][i])
            yield record


def _record(sample: dict) -> dict:
    size = sample.get('ori_shape', (0, 0))[:2]
    record = {'image': str(sample.get('img_path', '')), 'size': size}
    if 'pred_instances' in sample:
        found = sample['pred_instances']
        record['boxes'] = found['bboxes'].float().cpu().numpy()
        record['scores'] = found['scores'].float().cpu().numpy()
        record['labels'] = found['labels'].cpu().numpy()
        if 'masks' in found:
            record['masks'] = _run_lengths(found['masks'])
    for field, name in _MAPS.items():
        if field in sample:
            map_of = sample[field]  # mmseg says data, mmdet sem_seg
            values = map_of['data' if 'data' in map_of else 'sem_seg'].cpu().numpy().squeeze(0)
            small = values.astype(_smallest_type(values))
            record[name] = (zlib.compress(small.tobytes(), 1), small.dtype.str, small.shape)
    if 'pred_score' in sample:
        record['class_scores'] = sample['pred_score'].float().cpu().numpy()
        record['class_label'] = int(sample['pred_label'][0])
    return record


def _run_lengths(masks: Any) -> list[bytes]:
    if isinstance(masks, list):
        return [c if isinstance(c, bytes) else c.encode() for c in (m['counts'] for m in masks)]
    from mmdet.structures.mask import encode_mask_results

    return [encoded['counts'] for encoded in encode_mask_results(masks.cpu().numpy())]


def _smallest_type(values: np.ndarray) -> type:
    largest = int(values.max(initial=0))
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int64


def _arrays(records: list[dict], classes: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    yield 'format', np.array(FORMAT)
    yield 'classes', np.array(list(classes), dtype=np.str_)
    yield 'images', np.array([r['image'] for r in records], dtype=np.str_)
    yield 'sizes', np.array([r['size'] for r in records], dtype=np.int32).reshape(-1, 2)
    if records and all('boxes' in r for r in records):
        yield 'offsets', _ends([len(r['boxes']) for r in records])
        yield 'boxes', np.concatenate([r['boxes'] for r in records]).reshape(-1, 4)
        yield 'scores', np.concatenate([r['scores'] for r in records])
        yield 'labels', np.concatenate([r['labels'] for r in records])
    if records and all('masks' in r for r in records):
        counts = [c for r in records for c in r['masks']]
        yield 'mask_offsets', _ends([len(c) for c in counts])
        yield 'mask_bytes', np.frombuffer(b''.join(counts), dtype=np.uint8)
    for i, record in enumerate(records):
        for name in _MAPS.values():
            if name in record:
                packed, kind, shape = record[name]
                pixels = np.frombuffer(zlib.decompress(packed), dtype=kind)
                yield f'{name}_{i}', pixels.reshape(shape)
    if records and all('class_scores' in r for r in records):
        yield 'class_scores', np.stack([r['class_scores'] for r in records])
        yield 'class_labels', np.array([r['class_label'] for r in records])


def _ends(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
