"""Data that is broken, unusual or malicious, what becomes of it, and what ``check`` reports.

A case plants itself into a copy of a small data set with the layout of the digits. What becomes of
it is ``read``, ``refused`` (an error with bad_data='raise', left out with 'skip') or ``error``
(with both: nothing would be left). ``kind`` is a key of the catalogue of problems.
"""

import io
import json
import math
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

READ, REFUSED, ERROR = 'read', 'refused', 'error'
SIDE_PX = 128
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    plant: Callable
    outcome: str
    # Outcome of the file given to tools/infer.py; None where none is given.
    infer: str | None = None
    words: str = ''
    remark: str = ''
    # What `check` must report of it, and other errors that cannot be avoided.
    kind: str = ''
    also: tuple[str, ...] = ()

    def __str__(self):
        return f'{self.group}: {self.name}'


CASES: list[Case] = []
SPLITS = ('train', 'val')


def plant(name, root):
    """Plant the case of a name."""
    next(case for case in CASES if str(case) == name).plant(root)


# --- images ---------------------------------------------------------------------------------------


def picture(size=(SIDE_PX, SIDE_PX), mode='RGB'):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(cv2.GaussianBlur(pixels, (9, 9), 0)).convert(mode)


def encoded(image, kind, **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def first_image(root, split):
    return root / 'images' / split / '00001.jpg'


def image_case(
    name,
    outcome,
    *,
    words='',
    remark='',
    size=(SIDE_PX, SIDE_PX),
    infer=None,
    annotated=None,
    is_listed=False,
    kind='',
):
    """Register what writes or returns the bytes of an image of ``size`` pixels.

    Args:
        is_listed: Whether only a file that lists images leads to it; who looks into folders does
            not see it.
    """

    def register(make):
        def plant(root, file=None):
            if file is not None:
                file.unlink(missing_ok=True)
                write(make, file)
                return
            for split in SPLITS:
                file = first_image(root, split)
                file.unlink()
                write(make, file)
                annotate_whole(root, split, annotated or size)
                label_map = Image.new('L', size)
                label_map.save(root / 'label_maps' / split / '00001.png')
            for split in SPLITS:
                file = sorted((root / 'folders' / split / 'one').iterdir())[0]
                file.unlink()
                write(make, file)

        group = 'listed image' if is_listed else 'image'
        CASES.append(Case(group, name, plant, outcome, infer or outcome, words, remark, kind))
        return make

    return register


def write(make, file):
    content = make(file)
    if content is not None:
        file.write_bytes(content)


def annotate_whole(root, split, size, file_name=None):
    """Give the first image of a COCO file a size and one box that fits it."""
    path = root / 'annotations' / f'{split}.json'
    coco = json.loads(path.read_text())
    first, (w, h) = coco['images'][0], size
    first['width'], first['height'] = size
    first['file_name'] = file_name or first['file_name']
    own = [a for a in coco['annotations'] if a['image_id'] == first['id']]
    others = [a for a in coco['annotations'] if a not in own]
    outline = [[0, 0, w, 0, w, h, 0, h]]
    whole = {**own[0], 'bbox': [0, 0, w, h], 'area': w * h, 'segmentation': outline}
    coco['annotations'] = [whole, *others]
    path.write_text(json.dumps(coco))


def jpeg(mode='RGB', **settings):
    return encoded(picture(mode=mode), 'JPEG', **settings)


def png(mode='RGB'):
    return encoded(picture(mode=mode), 'PNG')


image_case('JPEG', READ)(lambda file: jpeg())
image_case('missing', REFUSED, kind='image-missing', words='does not exist', is_listed=True)(
    lambda file: None
)
image_case('zero bytes', REFUSED, kind='image-zero-bytes', words='is empty')(lambda file: b'')
image_case('text', REFUSED, kind='image-unreadable', words='no known image format')(
    lambda file: b'<html>404 not found</html>'
)


@image_case('JPEG that breaks off', REFUSED, kind='image-truncated', words='truncated')
def _(file):
    content = jpeg()
    return content[: len(content) // 2]


@image_case('PNG that breaks off', REFUSED, kind='image-truncated', words='cannot be read')
def _(file):
    content = png()
    return content[: len(content) // 2]


@image_case('PNG with a wrong checksum', REFUSED, kind='image-unreadable', words='cannot be read')
def _(file):
    content = bytearray(png())
    content[20] ^= 255
    return bytes(content)


image_case('1 x 1 pixel', READ, size=(1, 1))(lambda file: encoded(picture((1, 1)), 'PNG'))
image_case('grey', READ, remark='three equal channels')(lambda file: jpeg('L'))
image_case('16 bits, grey', READ, kind='image-deep', remark='the upper 8 bits, as OpenCV has it')(
    lambda file: cv2.imencode('.png', np.asarray(picture(mode='L')).astype(np.uint16) * 256)[
        1
    ].tobytes()
)
image_case('16 bits, colour', READ, remark='the upper 8 bits')(
    lambda file: cv2.imencode('.png', np.asarray(picture()).astype(np.uint16) * 256)[1].tobytes()
)


@image_case('32 bits', REFUSED, kind='image-truncated', words='32 bits')
def _(file):
    # As small as those of 8 bits: the upper ones would be black.
    values = np.full((SIDE_PX, SIDE_PX), 200, np.int32)
    return encoded(Image.fromarray(values), 'TIFF')


image_case('floating point', REFUSED, kind='image-truncated', words='floating-point')(
    lambda file: encoded(Image.fromarray(np.ones((SIDE_PX, SIDE_PX), np.float32)), 'TIFF')
)
image_case('CMYK', READ, remark='converted without a colour profile')(lambda file: jpeg('CMYK'))
image_case('palette', READ, remark='its colours')(lambda file: png('P'))
image_case('palette with transparency', READ, remark='its colours; transparency is ignored')(
    lambda file: encoded(picture(mode='P'), 'PNG', transparency=bytes([0, 128, 255]))
)
image_case('transparency', READ, remark='ignored')(lambda file: png('RGBA'))
image_case('black and white', READ)(lambda file: png('1'))


def with_orientation(value):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = value
    return encoded(picture((SIDE_PX, 96)), 'JPEG', exif=exif)


image_case(
    'turned by EXIF', READ, kind='image-rotated', size=(96, SIDE_PX), remark='turned upright'
)(lambda file: with_orientation(6))
image_case(
    'turned by EXIF, annotated as stored',
    REFUSED,
    kind='image-rotated-labels',
    size=(96, SIDE_PX),
    annotated=(SIDE_PX, 96),
    words='annotated as',
    infer=READ,
    remark='of instances; label maps have a size of their own',
)(lambda file: with_orientation(6))
image_case('broken EXIF', READ, remark='as stored')(
    lambda file: encoded(picture(), 'JPEG', exif=b'Exif\0\0II*\0\xff\xff\xff\xff\xff\xff')
)


@image_case('animated GIF', READ, remark='the first frame')
def _(file):
    frames = [picture(mode='L'), Image.new('L', (SIDE_PX, SIDE_PX))]
    return encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])


@image_case('animated WebP', READ, remark='the first frame')
def _(file):
    frames = [picture(), Image.new('RGB', (SIDE_PX, SIDE_PX))]
    return encoded(frames[0], 'WEBP', save_all=True, append_images=frames[1:])


def png_chunk(kind, content):
    checksum = struct.pack('>I', zlib.crc32(kind + content))
    return struct.pack('>I', len(content)) + kind + content + checksum


@image_case(
    'decompression bomb', REFUSED, kind='image-unreadable', words='more than 178,956,970 pixels'
)
def _(file):
    header = struct.pack('>IIBBBBB', 40_000, 40_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000), 9)
    chunks = ((b'IHDR', header), (b'IDAT', data), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(*chunk) for chunk in chunks)


@image_case(
    'compressed text of gigabytes in a PNG', REFUSED, kind='image-truncated', words='cannot be read'
)
def _(file):
    text = b'Comment\0\0' + zlib.compress(bytes(80_000_000), 9)
    content = png()
    return content[:33] + png_chunk(b'zTXt', text) + content[33:]


image_case('another ending than its format', READ, remark='the content counts')(
    lambda file: encoded(picture(), 'BMP')
)


@image_case(
    'PostScript', REFUSED, kind='image-unreadable', words='no known image format', remark='not run'
)
def _(file):
    ran = file.parent / 'ran'
    return (
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 128 128\n('
        + str(ran).encode()
        + b') (w) file\n'
    )


image_case(
    'folder in place of a file',
    REFUSED,
    kind='image-unreadable',
    words='is a folder',
    is_listed=True,
    infer=ERROR,
    remark='"is a folder"; `infer` looks for images in it',
)(lambda file: file.mkdir())
image_case(
    'pipe in place of a file',
    REFUSED,
    kind='image-unreadable',
    words='is a pipe',
    remark='not waited for',
    is_listed=True,
)(lambda file: os.mkfifo(file))
image_case(
    'device in place of a file',
    REFUSED,
    kind='image-unreadable',
    words='is a pipe, socket or device',
    is_listed=True,
)(lambda file: file.symlink_to('/dev/zero'))
image_case(
    'link to itself', REFUSED, kind='image-unreadable', words='cannot be read', is_listed=True
)(lambda file: file.symlink_to(file))


@image_case('file of a terabyte', REFUSED, kind='image-unreadable', words='at most')
def _(file):
    with file.open('wb') as stream:
        stream.truncate(2**40)


def named(name, outcome=READ, *, label=None, words='', remark=''):
    """Register an image whose COCO file gives it another name."""

    def plant(root, file=None):
        for split in SPLITS:
            source = first_image(root, split)
            try:
                target = source.parent / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
            except (OSError, ValueError):
                assert outcome == REFUSED
            annotate_whole(root, split, (SIDE_PX, SIDE_PX), file_name=name)

    kind = 'image-unreadable' if outcome == REFUSED else ''
    label = label or repr(name)[1:-1]
    CASES.append(Case('name', label, plant, outcome, None, words, remark, kind))


named('with a space.jpg')
named('größe 図.jpg')
named('two\nlines.jpg', remark='escaped in messages')
named('\x1b[2Jclears the screen.jpg', remark='escaped in messages')
named('../outside.jpg', remark='read from there; nothing is ever written by such a name')
named('-rf.jpg')
named('a' * 300 + '.jpg', REFUSED, label='of 300 letters', words='too long')
named('null\0byte.jpg', REFUSED, words='embedded null')
named('half a \ud800 letter.jpg', REFUSED, words='cannot be read')


# --- COCO files -----------------------------------------------------------------------------------


def coco_case(name, outcome=REFUSED, *, kind='', words='', remark='', also=()):
    """Register what changes a COCO file, or returns the bytes of another one."""

    def register(change):
        def plant(root, file=None):
            for split in SPLITS:
                path = root / 'annotations' / f'{split}.json'
                coco = json.loads(path.read_text())
                content = change(coco)
                if content is None:
                    content = json.dumps(coco).encode()
                path.write_bytes(content)

        # The message names the kind.
        told = words or (kind if outcome != READ else '')
        CASES.append(Case('COCO file', name, plant, outcome, None, told, remark, kind, also))
        return change

    return register


def first(coco, **values):
    coco['annotations'][0].update(values)


def changed(name, outcome=REFUSED, *, kind, remark='', also=(), **values):
    case = coco_case(name, outcome, kind=kind, remark=remark, also=also)
    case(lambda coco: first(coco, **values))


changed('unknown image', image_id=999, kind='annotation-image-unknown')
changed('unknown category', category_id=999, kind='annotation-category-unknown')
changed('box without width', bbox=[10, 10, 0, 20], kind='box-without-area')
changed('box outside of the image', bbox=[500, 10, 20, 20], kind='box-outside-image')
changed(
    'box a little beyond the edge',
    READ,
    kind='box-beyond-edge',
    bbox=[-3, -3, 60, 60],
    remark='as it is',
    also=('mask-box-disagree',),
)
changed(
    'box under a pixel', READ, kind='box-tiny', bbox=[10, 10, 0.5, 20], remark='mmdet leaves it out'
)
changed('box with NaN', bbox=[10, math.nan, 20, 20], kind='box-malformed')
changed('box with infinity', bbox=[10, 10, math.inf, 20], kind='box-malformed')
changed('box of 1e300 px', bbox=[10, 10, 1e300, 20], kind='box-malformed')
changed('box of a number of 400 digits', bbox=[10, 10, 10**400, 20], kind='box-malformed')
changed('box of three numbers', bbox=[1, 2, 3], kind='box-malformed')
changed('box of text', bbox='1234', kind='box-malformed')
changed('area 0', area=0, kind='area-not-positive')
changed('area NaN', area=math.nan, kind='area-not-positive')
changed('no polygons', segmentation=[], kind='mask-missing')
changed('empty polygon', segmentation=[[]], kind='mask-malformed')
changed('polygon of two corners', segmentation=[[1, 2, 3, 4]], kind='mask-malformed')
changed('polygon of an odd length', segmentation=[[1, 2, 3, 4, 5, 6, 7]], kind='mask-malformed')
changed('polygon with NaN', segmentation=[[1, 2, 3, 4, 5, math.nan]], kind='mask-malformed')
changed('polygon with infinity', segmentation=[[1, 2, 3, 4, 5, math.inf]], kind='mask-malformed')
changed('polygon of text', segmentation=[[1, 2, 3, 4, 5, 'x']], kind='mask-malformed')
changed('polygon a million pixels long', segmentation=[[0, 0, 1e6, 0, 9, 9]], kind='mask-malformed')
changed('polygon without area', segmentation=[[5, 5, 5, 5, 5, 5]], kind='mask-empty')
changed('mask that is a number', segmentation=7, kind='mask-malformed')
RLE = {'size': [SIDE_PX, SIDE_PX]}
changed('malformed RLE', segmentation={**RLE, 'counts': '##'}, kind='mask-malformed')
changed('RLE beyond its size', segmentation={**RLE, 'counts': [0, 10**6]}, kind='mask-malformed')
changed(
    'RLE with negative runs', segmentation={**RLE, 'counts': [-5, 16389]}, kind='mask-malformed'
)
changed('RLE of another size', segmentation={'size': [9, 9], 'counts': [0, 81]}, kind='mask-size')
changed('RLE without counts', segmentation=dict(RLE), kind='mask-malformed')
changed('id that is text', id='seven', kind='annotation-incomplete')
changed('image id that is a list', image_id=[1], kind='annotation-incomplete')
changed('category that is null', category_id=None, kind='annotation-incomplete')
changed('id of 30 digits', id=10**30, kind='annotation-incomplete')


@coco_case('annotation id twice', kind='annotation-id-repeated')
def _(coco):
    coco['annotations'][1]['id'] = coco['annotations'][0]['id']


coco_case('image id twice', kind='image-id-repeated')(
    lambda coco: coco['images'].append({**coco['images'][0], 'file_name': 'other.jpg'})
)
coco_case('category id twice', kind='category-id-repeated')(
    lambda coco: coco['categories'].append({**coco['categories'][0], 'name': 'again'})
)
coco_case('image ids of two kinds', kind='image-incomplete')(
    lambda coco: coco['images'].append({**coco['images'][0], 'id': 'one'})
)


for _key in ('bbox', 'area', 'iscrowd', 'category_id', 'image_id'):

    @coco_case(f'annotation without {_key}', kind='annotation-incomplete')
    def _(coco, key=_key):
        del coco['annotations'][0][key]


for _key in ('id', 'file_name', 'width'):

    @coco_case(f'image without {_key}', kind='image-incomplete')
    def _(coco, key=_key):
        coco['images'].append({k: v for k, v in coco['images'][0].items() if k != key})


coco_case('image of -1 px', kind='image-incomplete')(
    lambda coco: coco['images'].append({**coco['images'][0], 'id': 77, 'height': -1})
)


@coco_case('100,000 instances in an image', kind='image-crowded')
def _(coco):
    one = next(a for a in coco['annotations'] if a['image_id'] == coco['images'][0]['id'])
    coco['annotations'] += [{**one, 'id': 1000 + number} for number in range(100_000)]


def file_case(name, content, words):
    case = coco_case(name, ERROR, kind='annotation-file-broken', words=words)
    case(lambda coco: content)


file_case('of zero bytes', b'', 'is empty')
file_case('not JSON', b'{"images": [', 'is not JSON')
file_case('not UTF-8', b'{"images": "\xff\xff"}', 'is not JSON')
file_case('a list', b'[]', 'no list of objects')
file_case('a number', b'7', 'no list of objects')
file_case('nested a million times', b'[' * 10**6, 'is not of COCO')
file_case('number of a million digits', b'[' + b'7' * 10**6 + b']', 'is not JSON')


@coco_case(
    'annotations that are an object',
    ERROR,
    kind='annotation-file-broken',
    words="no list of objects 'annotations'",
)
def _(coco):
    coco['annotations'] = {}


@coco_case(
    'an annotation that is a number',
    ERROR,
    kind='annotation-file-broken',
    words="no list of objects 'annotations'",
)
def _(coco):
    coco['annotations'][0] = 7


@coco_case(
    'no categories', ERROR, kind='annotation-file-broken', words="no list of objects 'categories'"
)
def _(coco):
    del coco['categories']


@coco_case('no images', ERROR, kind='data-set-empty', words='no sample')
def _(coco):
    coco['images'] = coco['annotations'] = []


def annotation_pipe(root, file=None):
    for split in SPLITS:
        path = root / 'annotations' / f'{split}.json'
        path.unlink()
        os.mkfifo(path)


CASES.append(
    Case(
        'COCO file', 'pipe', annotation_pipe, ERROR, None, 'is a pipe', '', 'annotation-file-broken'
    )
)


# What does no harm to the libraries, but to a score: `check` names it.


@coco_case('class without instances', READ, kind='class-never-seen')
def _(coco):
    seen = coco['annotations'][0]['category_id']
    coco['annotations'] = [a for a in coco['annotations'] if a['category_id'] == seen]


changed('mask elsewhere than its box', READ, kind='mask-box-disagree', bbox=[60, 60, 30, 30],
        segmentation=[[0, 0, 6, 0, 6, 6, 0, 6]])  # fmt: skip
changed('mask beyond the edge', READ, kind='mask-outside-image', bbox=[100, 100, 28, 20],
        segmentation=[[100, 100, 140, 100, 140, 120, 100, 120]])  # fmt: skip
changed('annotation id 0', READ, kind='annotation-id-zero', id=0)


coco_case('annotation twice', READ, kind='annotation-repeated')(
    lambda coco: coco['annotations'].append({**coco['annotations'][0], 'id': 5000})
)
coco_case('image twice', READ, kind='image-listed-twice')(
    lambda coco: coco['images'].append({**coco['images'][0], 'id': 902})
)


@coco_case('image without instances', READ, kind='image-without-labels')
def _(coco):
    first_id = coco['images'][0]['id']
    coco['annotations'] = [a for a in coco['annotations'] if a['image_id'] != first_id]


@coco_case('image of another size', kind='image-size', words='annotated as')
def _(coco):
    coco['images'][0]['width'] = 2 * SIDE_PX


coco_case(
    'categories in another order', READ, kind='class-order', remark='labels follow the names'
)(lambda coco: coco['categories'].reverse())


@coco_case('misspelt category', ERROR, kind='class-missing', words="'three'; did you mean 'Three'")
def _(coco):
    next(c for c in coco['categories'] if c['name'] == 'three')['name'] = 'Three'


coco_case('category that no class names', READ, kind='class-left-out')(
    lambda coco: coco['categories'].append({'id': 77, 'name': 'ten'})
)
coco_case('category name twice', ERROR, kind='class-repeated', words="'nine'")(
    lambda coco: coco['categories'].append({'id': 78, 'name': 'nine'})
)


def tree_case(group, name, outcome=READ, *, kind, words='', also=()):
    """Register what changes files below the root in another way."""

    def register(change):
        def plant(root, file=None):
            change(root)

        CASES.append(Case(group, name, plant, outcome, None, words, '', kind, also))
        return change

    return register


tree_case('COCO file', 'image that it does not list', kind='image-not-used')(
    lambda root: picture().save(root / 'images' / 'train' / 'lonely.jpg')
)
tree_case('COCO file', 'copied image', kind='image-repeated')(
    lambda root: shutil.copy(root / 'images/train/00001.jpg', root / 'images/train/00002.jpg')
)
tree_case('COCO file', 'image of train and val', kind='image-repeated-in-train')(
    lambda root: shutil.copy(root / 'images/train/00001.jpg', root / 'images/val/00001.jpg')
)


# --- label maps -----------------------------------------------------------------------------------


def map_case(name, outcome=REFUSED, *, kind='', words='', remark=''):
    """Register what writes or returns the bytes of a label map."""

    def register(make):
        def plant(root, file=None):
            for split in SPLITS:
                file = root / 'label_maps' / split / '00001.png'
                file.unlink()
                write(make, file)

        CASES.append(Case('label map', name, plant, outcome, None, words, remark, kind))
        return make

    return register


def label_map(values=3, dtype=np.uint8, side=SIDE_PX):
    return Image.fromarray(np.full((side, side), values, dtype))


@map_case('palette', READ, remark='its indices')
def _(file):
    image = label_map()
    image.putpalette([9, 9, 9] * 256)
    return encoded(image, 'PNG')


map_case('16 bits', READ, remark='its values')(
    lambda file: encoded(label_map(dtype=np.uint16), 'PNG')
)
map_case('missing', kind='label-map-missing', words='without a label map')(lambda file: None)
map_case('zero bytes', kind='label-map-unreadable', words='cannot be read')(lambda file: b'')


@map_case('that breaks off', kind='label-map-unreadable', words='cannot be read')
def _(file):
    noise = np.random.default_rng(0).integers(0, 9, (SIDE_PX, SIDE_PX), np.uint8)
    content = encoded(Image.fromarray(noise), 'PNG')
    return content[: len(content) // 2]


map_case('another size', kind='label-map-size', words='another size than their image')(
    lambda file: encoded(label_map(side=64), 'PNG')
)
map_case('colour', kind='label-map-mode', words='colour images')(lambda file: png())
map_case('grey with transparency', kind='label-map-mode', words='colour images')(
    lambda file: png('LA')
)
map_case('values beyond the classes', kind='label-out-of-range', words='no class number')(
    lambda file: encoded(label_map(11), 'PNG')
)
map_case('values beyond eight bits', kind='label-out-of-range', words='no class number')(
    lambda file: encoded(label_map(300, np.uint16), 'PNG')
)
map_case('folder', kind='label-map-unreadable', words='is a folder')(lambda file: file.mkdir())
map_case('pipe', kind='label-map-unreadable', words='is a pipe')(lambda file: os.mkfifo(file))
map_case('every pixel ignored', READ, kind='image-without-labels')(
    lambda file: encoded(label_map(255), 'PNG')
)
tree_case('label map', 'without an image', kind='label-map-unused')(
    lambda root: label_map().save(root / 'label_maps/train/lonely.png')
)


@tree_case('label map', 'image with another suffix', kind='image-other-suffix')
def _(root):
    path = root / 'images/train/00001.jpg'
    shutil.copy(path, path.with_suffix('.jpeg'))


# --- class folders and lists of them --------------------------------------------------------------


def folder_case(name, outcome, *, kind, words='', also=()):
    """Register what changes the class folders of a split, or a list of files."""

    def register(change):
        def plant(root, file=None):
            for split in SPLITS:
                change(root / 'folders' / split)

        CASES.append(Case('class folders', name, plant, outcome, None, words, '', kind, also))
        return change

    return register


@folder_case('an empty class', READ, kind='class-never-seen')
def _(folder):
    shutil.rmtree(folder / 'two')
    (folder / 'two').mkdir()


folder_case('more folders than classes', ERROR, kind='num-classes', words='11 class folders')(
    lambda folder: shutil.copytree(folder / 'two', folder / 'zzz')
)


@folder_case('no images', ERROR, kind='data-set-empty', words='Found 0 files')
def _(folder):
    for file in folder.rglob('*.jpg'):
        file.unlink()


folder_case(
    'hidden folder', ERROR, kind='class-folder-hidden', words='.hidden', also=('num-classes',)
)(lambda folder: (folder / '.hidden').mkdir())
folder_case('image beside the folders', READ, kind='image-outside-folders')(
    lambda folder: picture().save(folder / 'x.jpg')
)
folder_case('file with another suffix', READ, kind='image-other-suffix')(
    lambda folder: picture().save(folder / 'two' / 'x.webp')
)
tree_case('class folders', 'missing in val', kind='class-folders-differ')(
    lambda root: shutil.rmtree(root / 'folders/val/five')
)


@tree_case('class folders', 'image of two classes', kind='image-with-two-labels')
def _(root):
    one, two = (next((root / 'folders/train' / name).iterdir()) for name in ('one', 'two'))
    shutil.copy(one, two)


def list_case(name, outcome, line, *, kind, words=''):
    def plant(root, file=None):
        for split in SPLITS:
            folder = root / 'folders' / split
            good = sorted(str(p.relative_to(folder)) for p in (folder / 'one').iterdir())
            lines = [f'{name} 1'.encode() for name in good] if outcome != ERROR else []
            (root / f'{split}.txt').write_bytes(b'\n'.join([*lines, line]))

    also = ('data-set-empty',) if outcome == ERROR else ()
    told = words or (kind if outcome != READ else '')
    CASES.append(Case('list of files', name, plant, outcome, None, told, '', kind, also))


list_case('line without a number', REFUSED, b'one', kind='line-malformed')
list_case('number that is text', REFUSED, b'one/a.jpg one', kind='line-malformed')
list_case('number beyond the classes', REFUSED, b'one/a.jpg 10', kind='label-out-of-range')
list_case('negative number', REFUSED, b'one/a.jpg -1', kind='line-malformed')
list_case('not UTF-8', ERROR, b'\xff\xff.jpg 1', kind='annotation-file-broken', words='UTF-8')
list_case('empty', ERROR, b'', kind='annotation-file-broken', words='is empty')
list_case(
    'image twice', READ, b'one/one_00001.jpg 1\none/one_00001.jpg 1', kind='image-listed-twice'
)
