"""Faults to plant into a copy of the digits; each says what must be found, where and how often.

A fault takes the root of the copy and returns the places, one string for each, that the examples
of its kind must contain. ``also`` names kinds that the same damage cannot avoid.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

TURN_RIGHT = 6
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Fault:
    kind: str
    plant: Callable
    also: tuple[str, ...] = ()

    def __str__(self):
        return self.plant.__name__


INSTANCES: list[Fault] = []
LABEL_MAPS: list[Fault] = []
FOLDERS: list[Fault] = []


def fault(table, kind, also=()):
    def register(plant):
        table.append(Fault(kind, plant, also))
        return plant

    return register


def edits_coco(plant):
    """Hand the training annotations over and write them back."""

    def with_file(root):
        path = root / 'annotations' / 'train.json'
        coco = json.loads(path.read_text())
        places = plant(coco, root / 'images' / 'train')
        path.write_text(json.dumps(coco))
        return places

    with_file.__name__ = plant.__name__
    return with_file


def change(coco, number, **values):
    coco['annotations'][number].update(values)
    return [f'annotation {coco["annotations"][number]["id"]}']


@fault(INSTANCES, 'class-never-seen', also=('image-without-labels',))
@edits_coco
def class_without_instances(coco, images):
    (four,) = (c['id'] for c in coco['categories'] if c['name'] == 'four')
    coco['annotations'] = [a for a in coco['annotations'] if a['category_id'] != four]
    return ['four']


@fault(INSTANCES, 'box-outside-image')
@edits_coco
def box_outside(coco, images):
    return change(coco, 0, bbox=[500, 10, 20, 20]) + change(coco, 1, bbox=[-40, 10, 30, 30])


@fault(INSTANCES, 'box-beyond-edge', also=('mask-box-disagree',))
@edits_coco
def box_beyond_edge(coco, images):
    return change(coco, 2, bbox=[60, 10, 90, 20])


@fault(INSTANCES, 'box-without-area')
@edits_coco
def box_without_width(coco, images):
    return change(coco, 3, bbox=[10, 10, 0, 20])


@fault(INSTANCES, 'box-malformed')
@edits_coco
def box_with_nan(coco, images):
    return change(coco, 4, bbox=[10, math.nan, 20, 20]) + change(coco, 5, bbox=[1, 2, 3])


@fault(INSTANCES, 'box-tiny')
@edits_coco
def box_under_a_pixel(coco, images):
    return change(coco, 6, bbox=[10, 10, 0.5, 20])


@fault(INSTANCES, 'area-not-positive')
@edits_coco
def area_zero(coco, images):
    return change(coco, 7, area=0)


@fault(INSTANCES, 'mask-missing')
@edits_coco
def mask_missing(coco, images):
    return change(coco, 8, segmentation=[])


@fault(INSTANCES, 'mask-empty')
@edits_coco
def mask_without_pixels(coco, images):
    return change(coco, 9, segmentation=[[5, 5, 5, 5, 5, 5]])


@fault(INSTANCES, 'mask-malformed')
@edits_coco
def mask_not_decodable(coco, images):
    broken = [
        [[1, 2, 3, 4, 5]],
        [[1, 2, 3, 4, 5, math.nan]],
        [[1, 2, 3, 4, 5, 'x']],
        {'size': [128, 128], 'counts': '##'},
        {'size': [128, 128], 'counts': [10, 20, 30]},
    ]
    places = [change(coco, 10 + i, segmentation=s) for i, s in enumerate(broken)]
    return [place for found in places for place in found]


@fault(INSTANCES, 'mask-size')
@edits_coco
def mask_of_another_size(coco, images):
    return change(coco, 15, segmentation={'size': [64, 64], 'counts': [64 * 32, 64 * 32]})


@fault(INSTANCES, 'mask-box-disagree')
@edits_coco
def mask_elsewhere(coco, images):
    corner = [[0, 0, 6, 0, 6, 6, 0, 6]]
    return change(coco, 16, segmentation=corner, bbox=[60, 60, 30, 30])


@fault(INSTANCES, 'mask-outside-image')
@edits_coco
def mask_beyond_edge(coco, images):
    square = [[100, 100, 140, 100, 140, 120, 100, 120]]
    return change(coco, 17, segmentation=square, bbox=[100, 100, 28, 20])


@fault(INSTANCES, 'annotation-category-unknown')
@edits_coco
def category_unknown(coco, images):
    return change(coco, 18, category_id=99)


@fault(INSTANCES, 'annotation-image-unknown')
@edits_coco
def image_id_unknown(coco, images):
    return change(coco, 19, image_id=999)


@fault(INSTANCES, 'annotation-id-repeated')
@edits_coco
def annotation_id_twice(coco, images):
    return change(coco, 21, id=coco['annotations'][20]['id'])


@fault(INSTANCES, 'annotation-id-zero')
@edits_coco
def annotation_id_zero(coco, images):
    return change(coco, 22, id=0)


@fault(INSTANCES, 'annotation-incomplete')
@edits_coco
def annotation_without_keys(coco, images):
    del coco['annotations'][23]['area']
    del coco['annotations'][24]['iscrowd']
    return [f'annotation {coco["annotations"][i]["id"]}' for i in (23, 24)]


@fault(INSTANCES, 'annotation-repeated')
@edits_coco
def annotation_twice(coco, images):
    coco['annotations'].append({**coco['annotations'][25], 'id': 5000})
    return ['annotation 5000']


@fault(INSTANCES, 'image-id-repeated')
@edits_coco
def image_id_twice(coco, images):
    coco['images'].append({**coco['images'][0], 'file_name': 'other.jpg'})
    return ['other.jpg']


@fault(INSTANCES, 'image-incomplete', also=('image-without-labels',))
@edits_coco
def image_without_size(coco, images):
    coco['images'].append({'id': 901, 'file_name': 'a.jpg', 'height': 128})
    return ['images[']


@fault(INSTANCES, 'image-listed-twice', also=('image-without-labels',))
@edits_coco
def image_listed_twice(coco, images):
    coco['images'].append({**coco['images'][1], 'id': 902})
    return ['image 902']


@fault(INSTANCES, 'class-order')
@edits_coco
def categories_swapped(coco, images):
    first, second = coco['categories'][:2]
    coco['categories'][:2] = [second, first]
    return ['class 0', 'class 1']


@fault(INSTANCES, 'class-missing', also=('class-left-out', 'class-never-seen'))
@edits_coco
def category_misspelt(coco, images):
    coco['categories'][3]['name'] = 'Three'
    return ["'three'; the data has 'Three'"]


@fault(INSTANCES, 'class-left-out')
@edits_coco
def category_unused(coco, images):
    coco['categories'].append({'id': 77, 'name': 'ten'})
    return ["'ten'"]


@fault(INSTANCES, 'class-repeated')
@edits_coco
def category_name_twice(coco, images):
    coco['categories'].append({'id': 78, 'name': 'nine'})
    return ["'nine'"]


@fault(INSTANCES, 'category-id-repeated', also=('class-left-out',))
@edits_coco
def category_id_twice(coco, images):
    coco['categories'].append(dict(coco['categories'][0]))
    coco['categories'][-1]['name'] = 'ten'
    return [f'category {coco["categories"][0]["id"]}']


@fault(INSTANCES, 'image-without-labels')
@edits_coco
def image_without_instances(coco, images):
    Image.new('RGB', (128, 128), 'red').save(images / 'red.jpg')
    coco['images'].append({'id': 903, 'file_name': 'red.jpg', 'width': 128, 'height': 128})
    return ['image 903']


@fault(INSTANCES, 'image-missing')
@edits_coco
def image_missing(coco, images):
    (images / '00002.jpg').unlink()
    return ['00002.jpg, image 2']


@fault(INSTANCES, 'image-zero-bytes')
@edits_coco
def image_of_zero_bytes(coco, images):
    (images / '00003.jpg').write_bytes(b'')
    return ['00003.jpg']


@fault(INSTANCES, 'image-truncated')
@edits_coco
def image_truncated(coco, images):
    halve(images / '00004.jpg')
    return ['00004.jpg']


@fault(INSTANCES, 'image-unreadable')
@edits_coco
def image_is_text(coco, images):
    (images / '00005.jpg').write_text('<html>not found</html>')
    return ['00005.jpg']


@fault(INSTANCES, 'image-size')
@edits_coco
def image_shrunk(coco, images):
    shrink(images / '00006.jpg', Image.Resampling.BILINEAR)
    return ['the image is 64x64, annotated 128x128']


@fault(INSTANCES, 'image-deep')
@edits_coco
def image_of_16_bits(coco, images):
    pixels = np.arange(128 * 128, dtype=np.uint16).reshape(128, 128)
    Image.fromarray(pixels).save(images / '00007.jpg', format='PNG')
    return ['00007.jpg']


@fault(INSTANCES, 'image-rotated-labels', also=('image-without-labels',))
@edits_coco
def image_turned_by_its_tag(coco, images):
    save_lying(images / 'lying.jpg', 'green')
    coco['images'].append({'id': 904, 'file_name': 'lying.jpg', 'width': 128, 'height': 96})
    return ['the image is 96x128, annotated 128x96']


@fault(INSTANCES, 'image-rotated', also=('image-without-labels',))
@edits_coco
def image_turned_and_annotated_so(coco, images):
    save_lying(images / 'turned.jpg', 'blue')
    coco['images'].append({'id': 905, 'file_name': 'turned.jpg', 'width': 96, 'height': 128})
    return ['turned.jpg, image 905']


@fault(INSTANCES, 'image-not-used')
@edits_coco
def image_not_listed(coco, images):
    Image.new('RGB', (128, 128), 'yellow').save(images / 'yellow.jpg')
    return ['yellow.jpg']


@fault(INSTANCES, 'image-repeated', also=('image-without-labels',))
@edits_coco
def image_copied(coco, images):
    shutil.copy(images / '00008.jpg', images / 'copy.jpg')
    coco['images'].append({'id': 906, 'file_name': 'copy.jpg', 'width': 128, 'height': 128})
    return ['00008.jpg']


@fault(INSTANCES, 'image-repeated-in-train')
def image_in_train_and_val(root):
    shutil.copy(root / 'images/train/00009.jpg', root / 'images/val/00001.jpg')
    return ['train/00009.jpg']


@fault(LABEL_MAPS, 'label-map-missing')
def map_missing(root):
    (root / 'label_maps/train/00001.png').unlink()
    return ['label_maps/train/00001.png']


@fault(LABEL_MAPS, 'label-map-unused')
def map_without_image(root):
    shutil.copy(root / 'label_maps/train/00002.png', root / 'label_maps/train/lonely.png')
    return ['lonely.png']


@fault(LABEL_MAPS, 'label-map-unreadable')
def map_unreadable(root):
    halve(root / 'label_maps/train/00003.png')
    (root / 'label_maps/train/00004.png').write_bytes(b'')
    return ['00003.png', '00004.png']


@fault(LABEL_MAPS, 'label-map-mode')
def map_in_colour(root):
    path = root / 'label_maps/train/00005.png'
    Image.open(path).convert('RGB').save(path)
    return ['00005.png: mode RGB']


@fault(LABEL_MAPS, 'label-map-size')
def map_shrunk(root):
    shrink(root / 'label_maps/val/00001.png', Image.Resampling.NEAREST)
    return ['the map is 64x64, the image 128x128']


@fault(LABEL_MAPS, 'label-out-of-range')
def label_beyond_the_classes(root):
    edit_map(root / 'label_maps/train/00006.png', 11)
    pixels = np.zeros((128, 128), np.uint16)
    pixels[:2] = 300
    Image.fromarray(pixels).save(root / 'label_maps/train/00007.png')
    return ['00006.png: values 11 in 4 pixels', '00007.png: values 300 in 256 pixels']


@fault(LABEL_MAPS, 'image-without-labels')
def map_ignored(root):
    Image.new('L', (128, 128), 255).save(root / 'label_maps/train/00008.png')
    return ['00008.png']


@fault(LABEL_MAPS, 'image-other-suffix', also=('label-map-unused',))
def image_with_another_suffix(root):
    path = root / 'images/train/00009.jpg'
    path.rename(path.with_suffix('.jpeg'))
    return ['00009.jpeg']


@fault(LABEL_MAPS, 'image-truncated')
def mapped_image_truncated(root):
    halve(root / 'images/train/00010.jpg')
    return ['00010.jpg']


@fault(LABEL_MAPS, 'image-zero-bytes')
def mapped_image_of_zero_bytes(root):
    (root / 'images/train/00011.jpg').write_bytes(b'')
    return ['00011.jpg']


@fault(LABEL_MAPS, 'image-repeated')
def mapped_image_copied(root):
    shutil.copy(root / 'images/train/00012.jpg', root / 'images/train/00013.jpg')
    return ['00012.jpg']


@fault(LABEL_MAPS, 'image-repeated-in-train')
def mapped_image_in_train_and_val(root):
    shutil.copy(root / 'images/train/00014.jpg', root / 'images/val/00002.jpg')
    return ['train/00014.jpg']


@fault(FOLDERS, 'image-zero-bytes')
def crop_of_zero_bytes(root):
    (root / 'folders/train/one/one_00001.jpg').write_bytes(b'')
    return ['one_00001.jpg']


@fault(FOLDERS, 'image-truncated')
def crop_truncated(root):
    halve(root / 'folders/train/one/one_00002.jpg')
    return ['one_00002.jpg']


@fault(FOLDERS, 'image-unreadable')
def crop_is_text(root):
    (root / 'folders/val/one/one_00001.jpg').write_text('gone')
    return ['val/one/one_00001.jpg']


@fault(FOLDERS, 'image-with-two-labels')
def crop_in_two_classes(root):
    shutil.copy(root / 'folders/train/two/two_00001.jpg', root / 'folders/train/three/x.jpg')
    return ['three there, two here']


@fault(FOLDERS, 'image-repeated')
def crop_copied(root):
    shutil.copy(root / 'folders/train/two/two_00002.jpg', root / 'folders/train/two/x.jpg')
    return ['two_00002.jpg']


@fault(FOLDERS, 'image-repeated-in-train')
def crop_in_train_and_val(root):
    shutil.copy(root / 'folders/train/two/two_00003.jpg', root / 'folders/val/two/x.jpg')
    return ['two_00003.jpg']


@fault(FOLDERS, 'image-outside-folders')
def crop_beside_the_folders(root):
    shutil.copy(root / 'folders/train/two/two_00004.jpg', root / 'folders/train/x.jpg')
    return ['train/x.jpg']


@fault(FOLDERS, 'image-other-suffix')
def crop_with_another_suffix(root):
    path = root / 'folders/train/two/two_00005.jpg'
    path.rename(path.with_suffix('.webp'))
    return ['two_00005.webp']


@fault(FOLDERS, 'class-never-seen')
def folder_emptied(root):
    for path in (root / 'folders/train/four').iterdir():
        path.unlink()
    return ['four']


@fault(FOLDERS, 'class-folders-differ')
def folder_missing(root):
    shutil.rmtree(root / 'folders/val/five')
    return ["lacks 'five', which the training set has"]


@fault(
    FOLDERS, 'class-folder-hidden', also=('class-folders-differ', 'num-classes', 'class-never-seen')
)
def folder_of_a_notebook(root):
    (root / 'folders/train/.ipynb_checkpoints').mkdir()
    return ['.ipynb_checkpoints']


def halve(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def shrink(path, method):
    with Image.open(path) as image:
        smaller = image.resize((64, 64), method)
    smaller.save(path)


def save_lying(path, colour):
    """128x96 as stored, 96x128 as its tag has it shown."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = TURN_RIGHT
    Image.new('RGB', (128, 96), colour).save(path, exif=exif)


def edit_map(path, value):
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[:2, :2] = value
    Image.fromarray(pixels).save(path)
