"""Write detections as COCO result files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swinv2_mm.atomic_write import atomic_path
from swinv2_mm.data_check.class_names import nearest
from swinv2_mm.datasets.files import read_json
from swinv2_mm.errors import DataError, UserError


@dataclass
class CocoNumbers:
    """Image and category ids of a COCO data set.

    Attributes:
        images: File name to id, a number or a text; empty: they are numbered from 1.
        categories: Number per class of the model.
    """

    categories: list[int]
    images: dict[str, int | str] = field(default_factory=dict)

    def of_image(self, file: str) -> int | str:
        """Find a path, or the longest end of it, among the file names of the data set.

        Raises:
            UserError: If it is none of them.
        """
        parts = Path(file).parts
        for start in range(len(parts)):
            if (number := self.images.get('/'.join(parts[start:]))) is not None:
                return number
        raise UserError(f'the annotation file does not know {file}')


def default_numbers(classes: Sequence[str]) -> CocoNumbers:
    """Numbers from 1."""
    return CocoNumbers([number + 1 for number in range(len(classes))])


def read_numbers(path: Path, *, classes: Sequence[str]) -> CocoNumbers:
    """Take the numbers from a COCO annotation file.

    Raises:
        DataError: If it is not one.
        UserError: If it lacks a class of the model.
    """
    content = read_json(str(path))
    try:
        images = _by_name((i['file_name'], _image_id(i['id'])) for i in content['images'])
        images |= {name.replace('\\', '/'): number for name, number in images.items()}
        categories = _by_name((c['name'], int(c['id'])) for c in content['categories'])
    except DataError as error:
        raise DataError(f'annotation file {path}: {error}') from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f'annotation file {path} is not one of COCO: {error!r}') from error
    if missing := [name for name in classes if name not in categories]:
        hint = nearest(missing[0], [name for name in categories if name not in classes])
        raise UserError(f"annotation file {path} has no category '{missing[0]}'{hint}")
    return CocoNumbers([categories[name] for name in classes], images)


def _by_name(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Return ids by names.

    Raises:
        DataError: If a name has two.
    """
    found: dict[str, Any] = {}
    for name, number in pairs:
        if found.setdefault(str(name), number) != number:
            raise DataError(f'it has two ids for {str(name)!r}: {found[str(name)]}, {number}')
    return found


def _image_id(value: object) -> int | str:
    """Return an id as it is: COCO's tools take texts too."""
    return value if isinstance(value, str) else int(value)


def write_coco_files(
    records: Iterable[dict], folder: Path, *, classes: Sequence[str], numbers: CocoNumbers
) -> None:
    """Write ``coco_results.json`` and ``coco_images.json``, holding one image at a time.

    The first is COCO's list of results, boxes with run lengths. The second says which image and
    class each number means, in the form of an annotation file.

    Args:
        records: Lines of an ``OutputFolder``; those of videos are skipped.
        folder: Where to write.
        classes: Names by the numbers of the model.
        numbers: Numbers to use.

    Raises:
        UserError: If an image has no number.
    """
    with (
        atomic_path(folder / 'coco_results.json') as results_part,
        atomic_path(folder / 'coco_images.json') as images_part,
        results_part.open('w', encoding='utf-8') as results,
        images_part.open('w', encoding='utf-8') as images,
    ):
        categories = [
            {'id': number, 'name': name}
            for number, name in zip(numbers.categories, classes, strict=True)
        ]
        images.write(f'{{"categories": {json.dumps(categories)},\n"images": [')
        results.write('[')
        starts = {results: '\n', images: '\n'}
        for entry, file in _entries(records, numbers, {'result': results, 'image': images}):
            file.write(starts[file] + json.dumps(entry))
            starts[file] = ',\n'
        results.write('\n]\n')
        images.write('\n]}\n')


def _entries(
    records: Iterable[dict], numbers: CocoNumbers, files: dict
) -> Iterator[tuple[dict, object]]:
    count = 0
    for record in records:
        if 'detections' not in record:
            continue
        count += 1
        number = numbers.of_image(record['file']) if numbers.images else count
        image = {'id': number, 'file_name': record['file']}
        yield {**image, 'width': record['width'], 'height': record['height']}, files['image']
        for found in record['detections']:
            entry = {'image_id': number, 'category_id': numbers.categories[found['label']]}
            for key in ('bbox', 'score', 'segmentation'):
                if key in found:
                    entry[key] = found[key]
            yield entry, files['result']
