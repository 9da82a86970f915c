"""Input that is broken, unusual or malicious, and what shall become of it.

A case plants itself into a copy of a small data set with the layout of the digits. What becomes of
it is ``read``, ``refused`` (an error with bad_data='raise', left out with 'skip') or ``error``
(with both: nothing would be left).
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
    # Of a file given to tools/infer.py; None where there is none.
    infer: str | None = None
    words: str = ''
    remark: str = ''

    def __str__(self):
        return f'{self.group}: {self.name}'


CASES: list[Case] = []
SPLITS = ('train', 'val')


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
        CASES.append(Case(group, name, plant, outcome, infer or outcome, words, remark))
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


@image_case('JPEG', READ)
def _(file):
    return jpeg()


@image_case('missing', REFUSED, words='does not exist', is_listed=True)
def _(file):
    return None


@image_case('zero bytes', REFUSED, words='is empty')
def _(file):
    return b''


@image_case('text', REFUSED, words='no known image format')
def _(file):
    return b'<html>404 not found</html>'


@image_case('JPEG that breaks off', REFUSED, words='truncated')
def _(file):
    content = jpeg()
    return content[: len(content) // 2]


@image_case('PNG that breaks off', REFUSED, words='cannot be read')
def _(file):
    content = png()
    return content[: len(content) // 2]


@image_case('PNG with a wrong checksum', REFUSED, words='cannot be read')
def _(file):
    content = bytearray(png())
    content[20] ^= 255
    return bytes(content)


@image_case('1 x 1 pixel', READ, size=(1, 1))
def _(file):
    return encoded(picture((1, 1)), 'PNG')


@image_case('grey', READ, remark='three equal channels')
def _(file):
    return jpeg('L')


@image_case('16 bits, grey', READ, remark='the upper 8 bits, as OpenCV has it')
def _(file):
    return cv2.imencode('.png', np.asarray(picture(mode='L')).astype(np.uint16) * 256)[1].tobytes()


@image_case('16 bits, colour', READ, remark='the upper 8 bits')
def _(file):
    return cv2.imencode('.png', np.asarray(picture()).astype(np.uint16) * 256)[1].tobytes()


@image_case('32 bits', REFUSED, words='32 bits')
def _(file):
    values = np.full((SIDE_PX, SIDE_PX), 2**20, np.int32)
    return encoded(Image.fromarray(values), 'TIFF')


@image_case('floating point', REFUSED, words='floating-point')
def _(file):
    return encoded(Image.fromarray(np.ones((SIDE_PX, SIDE_PX), np.float32)), 'TIFF')


@image_case('CMYK', READ, remark='converted without a colour profile')
def _(file):
    return jpeg('CMYK')


@image_case('palette', READ, remark='its colours')
def _(file):
    return png('P')


@image_case('palette with transparency', READ, remark='its colours; transparency is ignored')
def _(file):
    return encoded(picture(mode='P'), 'PNG', transparency=bytes([0, 128, 255]))


@image_case('transparency', READ, remark='ignored')
def _(file):
    return png('RGBA')


@image_case('black and white', READ)
def _(file):
    return png('1')


def with_orientation(value):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = value
    return encoded(picture((SIDE_PX, 96)), 'JPEG', exif=exif)


@image_case('turned by EXIF', READ, size=(96, SIDE_PX), remark='turned upright')
def _(file):
    return with_orientation(6)


@image_case(
    'turned by EXIF, annotated as stored', REFUSED, size=(96, SIDE_PX), annotated=(SIDE_PX, 96),
    words='annotated as', infer=READ, remark='of instances; label maps have a size of their own',
)  # fmt: skip
def _(file):
    return with_orientation(6)


@image_case('broken EXIF', READ, remark='as stored')
def _(file):
    return encoded(picture(), 'JPEG', exif=b'Exif\0\0II*\0\xff\xff\xff\xff\xff\xff')


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


@image_case('decompression bomb', REFUSED, words='more than 178,956,970 pixels')
def _(file):
    header = struct.pack('>IIBBBBB', 40_000, 40_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000), 9)
    chunks = ((b'IHDR', header), (b'IDAT', data), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(*chunk) for chunk in chunks)


@image_case('compressed text of gigabytes in a PNG', REFUSED, words='cannot be read')
def _(file):
    text = b'Comment\0\0' + zlib.compress(bytes(80_000_000), 9)
    content = png()
    return content[:33] + png_chunk(b'zTXt', text) + content[33:]


@image_case('another ending than its format', READ, remark='the content counts')
def _(file):
    return encoded(picture(), 'BMP')


@image_case('PostScript', REFUSED, words='no known image format', remark='not run')
def _(file):
    ran = file.parent / 'ran'
    return (
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 128 128\n('
        + str(ran).encode()
        + b') (w) file\n'
    )


@image_case(
    'folder in place of a file', REFUSED, words='is a folder', is_listed=True, infer=ERROR,
    remark='"is a folder"; `infer` looks for images in it',
)  # fmt: skip
def _(file):
    file.mkdir()


@image_case(
    'pipe in place of a file', REFUSED, words='is a pipe', remark='not waited for', is_listed=True
)
def _(file):
    os.mkfifo(file)


@image_case(
    'device in place of a file', REFUSED, words='is a pipe, socket or device', is_listed=True
)
def _(file):
    file.symlink_to('/dev/zero')


@image_case('link to itself', REFUSED, words='cannot be read', is_listed=True)
def _(file):
    file.symlink_to(file)


@image_case('file of a terabyte', REFUSED, words='at most')
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

    CASES.append(Case('name', label or repr(name)[1:-1], plant, outcome, None, words, remark))


named('with a space.jpg')
named('größe 図.jpg')
named('two\nlines.jpg', remark='escaped in messages')
named('\x1b[2Jclears the screen.jpg', remark='escaped in messages')
named('../outside.jpg', remark='read from there; nothing is ever written by such a name')
named('-rf.jpg')
named('a' * 300 + '.jpg', REFUSED, label='of 300 letters', words='too long')
named('null\0byte.jpg', REFUSED, words='null byte')
named('half a \ud800 letter.jpg', REFUSED, words='cannot be read')


# --- COCO files -----------------------------------------------------------------------------------


def coco_case(name, outcome=REFUSED, *, words='', remark=''):
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

        CASES.append(Case('COCO file', name, plant, outcome, None, words, remark))
        return change

    return register


def first(coco, **values):
    coco['annotations'][0].update(values)


def changed(name, outcome=REFUSED, *, words='', remark='', **values):
    coco_case(name, outcome, words=words, remark=remark)(lambda coco: first(coco, **values))


changed('unknown image', image_id=999, words='unknown images')
changed('unknown category', category_id=999, words='unknown categories')
changed('box without width', bbox=[10, 10, 0, 20], words='without width or height')
changed('box outside of the image', bbox=[500, 10, 20, 20], words='outside their image')
changed('box a little beyond the edge', READ, bbox=[-3, -3, 60, 60], remark='as it is')
changed('box under a pixel', READ, bbox=[10, 10, 0.5, 20], remark='mmdet leaves it out')
changed('box with NaN', bbox=[10, math.nan, 20, 20], words='four finite numbers')
changed('box with infinity', bbox=[10, 10, math.inf, 20], words='four finite numbers')
changed('box of 1e300 px', bbox=[10, 10, 1e300, 20], words='four finite numbers')
changed('box of a number of 400 digits', bbox=[10, 10, 10**400, 20], words='four finite numbers')
changed('box of three numbers', bbox=[1, 2, 3], words='four finite numbers')
changed('box of text', bbox='1234', words='four finite numbers')
changed('area 0', area=0, words='without a positive area')
changed('area NaN', area=math.nan, words='without a positive area')
changed('no polygons', segmentation=[], words='without a mask')
changed('empty polygon', segmentation=[[]], words='polygons or RLE')
changed('polygon of two corners', segmentation=[[1, 2, 3, 4]], words='polygons or RLE')
changed('polygon of an odd length', segmentation=[[1, 2, 3, 4, 5, 6, 7]], words='polygons or RLE')
changed('polygon with NaN', segmentation=[[1, 2, 3, 4, 5, math.nan]], words='polygons or RLE')
changed('polygon with infinity', segmentation=[[1, 2, 3, 4, 5, math.inf]], words='polygons or RLE')
changed('polygon of text', segmentation=[[1, 2, 3, 4, 5, 'x']], words='polygons or RLE')
changed('polygon a million pixels long', segmentation=[[0, 0, 1e6, 0, 9, 9]], words='reaches')
changed('polygon without area', segmentation=[[5, 5, 5, 5, 5, 5]], words='without a pixel')
changed('mask that is a number', segmentation=7, words='polygons or RLE')
RLE = {'size': [SIDE_PX, SIDE_PX]}
changed('RLE of nonsense', segmentation={**RLE, 'counts': '##'}, words='none of RLE')
changed('RLE beyond its size', segmentation={**RLE, 'counts': [0, 10**6]}, words='pixels')
changed('RLE with negative runs', segmentation={**RLE, 'counts': [-5, 16389]}, words='pixels')
changed(
    'RLE of another size', segmentation={'size': [9, 9], 'counts': [0, 81]}, words='another size'
)
changed('RLE without counts', segmentation=dict(RLE), words='counts')
changed('id that is text', id='seven', words='no whole number')
changed('image id that is a list', image_id=[1], words='lack a key')
changed('category that is null', category_id=None, words='lack a key')
changed('id of 30 digits', id=10**30, words='no whole number')


@coco_case('annotation id twice', words='ids that occur twice')
def _(coco):
    coco['annotations'][1]['id'] = coco['annotations'][0]['id']


@coco_case('image id twice', words='image ids that occur twice')
def _(coco):
    coco['images'].append({**coco['images'][0], 'file_name': 'other.jpg'})


@coco_case('category id twice', words='category ids')
def _(coco):
    coco['categories'].append({**coco['categories'][0], 'name': 'again'})


@coco_case('image ids of two kinds', words='another kind')
def _(coco):
    coco['images'].append({**coco['images'][0], 'id': 'one'})


for _key in ('bbox', 'area', 'iscrowd', 'category_id', 'image_id'):

    @coco_case(f'annotation without {_key}', words=_key)
    def _(coco, key=_key):
        del coco['annotations'][0][key]


for _key in ('id', 'file_name', 'width'):

    @coco_case(f'image without {_key}', words='id, file_name, width or height')
    def _(coco, key=_key):
        coco['images'].append({k: v for k, v in coco['images'][0].items() if k != key})


@coco_case('image of -1 px', words='id, file_name, width or height')
def _(coco):
    coco['images'].append({**coco['images'][0], 'id': 77, 'height': -1})


@coco_case('100,000 instances in an image', words='more instances than memory can hold')
def _(coco):
    one = next(a for a in coco['annotations'] if a['image_id'] == coco['images'][0]['id'])
    coco['annotations'] += [{**one, 'id': 1000 + number} for number in range(100_000)]


def file_case(name, content, words):
    coco_case(name, ERROR, words=words)(lambda coco: content)


file_case('of zero bytes', b'', 'is empty')
file_case('not JSON', b'{"images": [', 'is not JSON')
file_case('not UTF-8', b'{"images": "\xff\xff"}', 'is not JSON')
file_case('a list', b'[]', 'no list of objects')
file_case('a number', b'7', 'no list of objects')
file_case('nested a million times', b'[' * 10**6, 'is not of COCO')
file_case('number of a million digits', b'[' + b'7' * 10**6 + b']', 'is not JSON')


@coco_case('annotations that are an object', ERROR, words="no list of objects 'annotations'")
def _(coco):
    coco['annotations'] = {}


@coco_case('an annotation that is a number', ERROR, words="no list of objects 'annotations'")
def _(coco):
    coco['annotations'][0] = 7


@coco_case('no categories', ERROR, words="no list of objects 'categories'")
def _(coco):
    del coco['categories']


@coco_case('no images', ERROR, words='no sample that can be used')
def _(coco):
    coco['images'] = coco['annotations'] = []


def annotation_pipe(root, file=None):
    for split in SPLITS:
        path = root / 'annotations' / f'{split}.json'
        path.unlink()
        os.mkfifo(path)


CASES.append(Case('COCO file', 'pipe', annotation_pipe, ERROR, None, 'is a pipe'))


# --- label maps -----------------------------------------------------------------------------------


def map_case(name, outcome=REFUSED, *, words='', remark=''):
    """Register what writes or returns the bytes of a label map."""

    def register(make):
        def plant(root, file=None):
            for split in SPLITS:
                file = root / 'label_maps' / split / '00001.png'
                file.unlink()
                write(make, file)

        CASES.append(Case('label map', name, plant, outcome, None, words, remark))
        return make

    return register


def label_map(values=3, dtype=np.uint8, side=SIDE_PX):
    return Image.fromarray(np.full((side, side), values, dtype))


@map_case('palette', READ, remark='its indices')
def _(file):
    image = label_map()
    image.putpalette([9, 9, 9] * 256)
    return encoded(image, 'PNG')


@map_case('16 bits', READ, remark='its values')
def _(file):
    return encoded(label_map(dtype=np.uint16), 'PNG')


@map_case('missing', words='without a label map')
def _(file):
    return None


@map_case('zero bytes', words='cannot be read')
def _(file):
    return b''


@map_case('that breaks off', words='cannot be read')
def _(file):
    noise = np.random.default_rng(0).integers(0, 9, (SIDE_PX, SIDE_PX), np.uint8)
    content = encoded(Image.fromarray(noise), 'PNG')
    return content[: len(content) // 2]


@map_case('another size', words='another size than their image')
def _(file):
    return encoded(label_map(side=64), 'PNG')


@map_case('colour', words='colour pictures')
def _(file):
    return png()


@map_case('grey with transparency', words='colour pictures')
def _(file):
    return png('LA')


@map_case('values beyond the classes', words='no class number')
def _(file):
    return encoded(label_map(11), 'PNG')


@map_case('values beyond eight bits', words='no class number')
def _(file):
    return encoded(label_map(300, np.uint16), 'PNG')


@map_case('folder', words='is a folder')
def _(file):
    file.mkdir()


@map_case('pipe', words='is a pipe')
def _(file):
    os.mkfifo(file)


# --- class folders and lists of them --------------------------------------------------------------


def folder_case(name, outcome, *, words, lines=None, remark=''):
    """Register what changes the class folders of a split, or a list of files."""

    def register(change):
        def plant(root, file=None):
            for split in SPLITS:
                change(root / 'folders' / split)

        CASES.append(Case('class folders', name, plant, outcome, None, words, remark))
        return change

    return register


@folder_case('an empty class', READ, words='')
def _(folder):
    shutil.rmtree(folder / 'two')
    (folder / 'two').mkdir()


@folder_case('more folders than classes', ERROR, words='11 class folders')
def _(folder):
    shutil.copytree(folder / 'two', folder / 'zzz')


@folder_case('no images', ERROR, words='Found 0 files')
def _(folder):
    for file in folder.rglob('*.jpg'):
        file.unlink()


def list_case(name, outcome, line, *, words=''):
    def plant(root, file=None):
        for split in SPLITS:
            folder = root / 'folders' / split
            good = sorted(str(p.relative_to(folder)) for p in (folder / 'one').iterdir())
            lines = [f'{name} 1'.encode() for name in good] if outcome != ERROR else []
            (root / f'{split}.txt').write_bytes(b'\n'.join([*lines, line]))

    CASES.append(Case('list of files', name, plant, outcome, None, words))


list_case('line without a number', REFUSED, b'one', words="not 'file number'")
list_case('number that is text', REFUSED, b'one/a.jpg one', words="not 'file number'")
list_case('number beyond the classes', REFUSED, b'one/a.jpg 10', words='no class number')
list_case('negative number', REFUSED, b'one/a.jpg -1', words="not 'file number'")
list_case('not UTF-8', ERROR, b'\xff\xff.jpg 1', words='not a text in UTF-8')
list_case('empty', ERROR, b'', words='is empty')
