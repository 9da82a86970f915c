"""Data sets of a few small pictures, written where a config looks for its own and in its layout."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import registry
from PIL import Image

from swinv2_mm.datasets.panoptic_api import id2rgb

WIDTH, HEIGHT = 96, 72
NUM_TRAIN, NUM_TEST = 2, 1
BACKGROUND = 255
MOST_FOLDERS = 100  # of the 21,841 of ImageNet-22K, which are not counted


def category_ids(number: int) -> list[int]:
    """Return ids of categories that no label gives by counting, as those of COCO itself."""
    return [7, 3, 11, *range(12, 9 + number)][:number]


def renumber_categories(path: Path) -> None:
    """Give the categories of a COCO annotation file such ids."""
    content = json.loads(path.read_text())
    old = [category['id'] for category in content['categories']]
    ids = dict(zip(old, category_ids(len(old)), strict=True))
    for category in content['categories']:
        category['id'] = ids[category['id']]
    for annotation in content['annotations']:
        annotation['category_id'] = ids[annotation['category_id']]
    path.write_text(json.dumps(content))


def write_data(tree: Mapping[str, Any]) -> None:
    """Write what the loaders and evaluators of a config read, over what is there."""
    for loader, num_images in (('train_dataloader', NUM_TRAIN), ('test_dataloader', NUM_TEST)):
        for dataset in _innermost(tree[loader]['dataset']):
            with registry.DATASETS.switch_scope_and_registry(tree['default_scope']) as datasets:
                cls = datasets.get(dataset['type'])
            assert cls is not None, f'no such data set: {dataset["type"]}'
            layouts = {base.__name__ for base in cls.__mro__}
            known = {**getattr(cls, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
            known.setdefault('classes', range(_num_classes(tree['model'])))
            write = next((w for layout, w in _WRITERS.items() if layout in layouts), _write_folders)
            write(dataset, known, num_images)
    # Panoptic results are also measured as instances, from a file of their own.
    for evaluator in _listed(tree['test_evaluator']):
        path = Path(evaluator.get('ann_file') or '.')
        if not path.exists():
            images = Path(dataset['data_root']) / dataset['data_prefix']['img']
            _write_instances(path, images, known['thing_classes'], NUM_TEST)


def _num_classes(model: Mapping[str, Any]) -> int:
    return (model.get('head') or {}).get('num_classes', NUM_TRAIN)


def _listed(value: Any) -> list | tuple:
    return value if isinstance(value, (list, tuple)) else [value]


def _innermost(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is None:
        yield dataset
        return
    for entry in _listed(inner):
        yield from _innermost(entry)


def _boxes(index: int) -> list[tuple[int, int, int, int]]:
    """Three boxes (left, top, width, height) in pixels, apart from each other."""
    x, y = 4 + index, 6 + index
    return [(x, y, 36, 50), (x + 42, y, 24, 20), (x + 44, y + 28, 40, 30)]


def _label_map(index: int) -> np.ndarray:
    """Pixels of box i are i, the rest ``BACKGROUND``."""
    labels = np.full((HEIGHT, WIDTH), BACKGROUND, np.uint8)
    for number, (x, y, w, h) in enumerate(_boxes(index)):
        labels[y : y + h, x : x + w] = number
    return labels


def write_pictures(folder: Path, num_images: int, *, first: int = 0) -> list[str]:
    """Three boxes on noise in each; those of another number ``first`` are others."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f'{index + 1:012}.jpg' for index in range(first, first + num_images)]
    for index, name in enumerate(names, first):
        if not (folder / name).exists():
            picture = np.random.default_rng(index).integers(0, 120, (HEIGHT, WIDTH, 3), np.uint8)
            for number in range(3):
                picture[_label_map(index) == number, number] = 250
            Image.fromarray(picture).save(folder / name)
    return names


def _write_label_maps(folder: Path, num_images: int, *, num_labels: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num_images):
        labels = _label_map(index)
        labels[(labels >= num_labels) & (labels != BACKGROUND)] = 0
        Image.fromarray(labels).save(folder / f'{index + 1:012}.png')


def _write_instances(path: Path, folder: Path, classes: Sequence[str], num_images: int) -> None:
    names = write_pictures(folder, num_images)
    annotations, ids = [], category_ids(len(classes))
    for index in range(num_images):
        for number, (x, y, w, h) in enumerate(_boxes(index)):
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': index + 1,
                    'category_id': ids[number % len(classes)],
                    'bbox': [x, y, w, h],
                    'area': w * h,
                    'iscrowd': 0,
                    'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    categories = [{'id': id, 'name': name} for id, name in zip(ids, classes, strict=True)]
    _write_json(path, names, annotations, categories)


def _write_json(path: Path, names: Sequence[str], annotations: list, categories: list) -> None:
    images = [
        {'id': index + 1, 'file_name': name, 'width': WIDTH, 'height': HEIGHT}
        for index, name in enumerate(names)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({'images': images, 'annotations': annotations, 'categories': categories})
    )


def _write_coco(dataset: Mapping[str, Any], known: Mapping[str, Any], num_images: int) -> None:
    root, prefixes = Path(dataset['data_root']), dataset['data_prefix']
    _write_instances(
        root / dataset['ann_file'], root / prefixes['img'], known['classes'], num_images
    )
    if 'seg' in prefixes:  # the label maps of HTC's semantic branch
        _write_label_maps(root / prefixes['seg'], num_images, num_labels=3)


def _write_panoptic(dataset: Mapping[str, Any], known: Mapping[str, Any], num_images: int) -> None:
    """Boxes 0 and 1 are things, box 2 is stuff, the rest is nothing."""
    root, prefixes, things = (
        Path(dataset['data_root']),
        dataset['data_prefix'],
        known['thing_classes'],
    )
    names = write_pictures(root / prefixes['img'], num_images)
    (root / prefixes['seg']).mkdir(parents=True, exist_ok=True)
    annotations, numbers = [], category_ids(len(known['classes']))
    for index, name in enumerate(names):
        ids = np.zeros((HEIGHT, WIDTH), np.int32)
        segments = []
        for number, (x, y, w, h) in enumerate(_boxes(index)):
            label, segment = number if number < 2 else len(things), 1000 * (number + 1)
            ids[y : y + h, x : x + w] = segment
            shape = {'bbox': [x, y, w, h], 'area': w * h, 'iscrowd': 0}
            segments.append({'id': segment, 'category_id': numbers[label], **shape})
        file_name = name.replace('.jpg', '.png')
        Image.fromarray(id2rgb(ids)).save(root / prefixes['seg'] / file_name)
        annotations.append(
            {'image_id': index + 1, 'file_name': file_name, 'segments_info': segments}
        )
    categories = [
        {'id': id, 'name': name, 'isthing': int(name in things)}
        for id, name in zip(numbers, known['classes'], strict=True)
    ]
    _write_json(root / dataset['ann_file'], names, annotations, categories)


def _write_segments(dataset: Mapping[str, Any], known: Mapping[str, Any], num_images: int) -> None:
    root, prefixes = Path(dataset['data_root']), dataset['data_prefix']
    write_pictures(root / prefixes['img_path'], num_images)
    _write_label_maps(root / prefixes['seg_map_path'], num_images, num_labels=len(known['classes']))


def _write_folders(dataset: Mapping[str, Any], known: Mapping[str, Any], num_images: int) -> None:
    """A folder per class, most of them empty, and a list if the data set may have one."""
    root, split = Path(dataset['data_root']), dataset.get('split')
    prefix = dataset.get('data_prefix') or split or ''
    folder = root / (prefix if isinstance(prefix, str) else prefix['img_path'])
    lines = []
    for label in range(num_images):
        (name,) = write_pictures(folder / str(label), 1)
        lines.append(f'{label}/{name} {label}')
    ann_file = dataset.get('ann_file') or (f'meta/{split}.txt' if split else None)
    if ann_file:
        (root / ann_file).parent.mkdir(parents=True, exist_ok=True)
        (root / ann_file).write_text('\n'.join(lines))
    else:
        for label in range(min(len(known['classes']), MOST_FOLDERS)):
            (folder / str(label)).mkdir(exist_ok=True)


# By the name of a base class; the first that fits.
_WRITERS = {
    'CocoPanopticDataset': _write_panoptic,
    'CocoDataset': _write_coco,
    'BaseSegDataset': _write_segments,
}
