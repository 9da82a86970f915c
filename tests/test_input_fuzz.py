"""Made-up annotation files and images: a result that can be used, or a DataError; nothing else.

python -m pytest -n 0 -s -m slow tests/test_input_fuzz.py     # 32,000 cases
"""

import copy
import io
import json
import math
import struct
import zlib
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bounded import bounded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

import swinv2_mm.models  # noqa: F401  the stand-in for mmcv's compiled ops
from swinv2_mm.data_check.guarded import GuardedDataset
from swinv2_mm.data_check.listing import Listing
from swinv2_mm.data_check.loading import LoadCheckedAnnotations
from swinv2_mm.data_check.readers import read
from swinv2_mm.data_check.sources import Source
from swinv2_mm.data_check.usable import refuse_whole
from swinv2_mm.datasets.image_files import FORMATS, read_image
from swinv2_mm.errors import DataError

WIDTH, HEIGHT = 24, 20
# Examples for each of the four readers: by default, and with -m slow.
FEW, MANY = 250, 8_000


def examples(number):
    return settings(
        max_examples=number, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


# --- COCO files -----------------------------------------------------------------------------------

BOX = [2, 3, 10, 9]
SQUARE = [[2, 3, 12, 3, 12, 12, 2, 12]]
RLE = {'size': [HEIGHT, WIDTH], 'counts': [40, 30, 410]}
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 30), st.integers(), st.floats(), st.text(max_size=6),
    st.sampled_from([
        [], {}, [[]], [[1, 2]], [None], math.nan, math.inf, 1e300, 10**400, -0.0, '../x', '\0',
        '\ud800', BOX, SQUARE, RLE, {**RLE, 'counts': 'PP0'},
        {**RLE, 'counts': '0' * 99}, {'size': 5},
        [0, 0, 1e-9, 1e-9], [[math.nan] * 8], [[1e9] * 8], [[0, 0, 0, 0, 0, 0]], [SQUARE, RLE],
    ]),
    st.lists(st.one_of(st.integers(-50, 50), st.floats(-99, 99)), max_size=9),
    st.lists(st.lists(st.one_of(st.integers(-50, 50), st.floats()), max_size=9), max_size=3),
    st.builds(lambda c: {**RLE, 'counts': c}, st.text('0123456789:;<=>?@ABCPQ`abo', max_size=9)),
    st.builds(lambda c: {**RLE, 'counts': c}, st.lists(st.integers(-9, 500), max_size=6)),
)  # fmt: skip
OF_ANNOTATION = 'id image_id category_id bbox area iscrowd segmentation ignore'.split()
PLACES = [
    *(('annotations', 0, key) for key in OF_ANNOTATION),
    *(('images', 0, key) for key in ('id', 'file_name', 'width', 'height')),
    *(('annotations', n, key) for n in (1, 2) for key in ('segmentation', 'bbox')),
    *(('categories', 0, key) for key in ('id', 'name')),
    *((key, 1) for key in ('annotations', 'images', 'categories')),
    *((key,) for key in ('annotations', 'images', 'categories')),
]


def sound_coco():
    annotation = {'image_id': 1, 'category_id': 1, 'bbox': BOX, 'area': 90, 'iscrowd': 0}
    masks = [SQUARE, RLE, SQUARE]
    return {
        'images': [
            {'id': n, 'file_name': f'{n}.png', 'width': WIDTH, 'height': HEIGHT} for n in (1, 2)
        ],
        'annotations': [
            {**annotation, 'id': n + 1, 'image_id': n // 2 + 1, 'segmentation': copy.deepcopy(mask)}
            for n, mask in enumerate(masks)
        ],
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}],
    }


CHANGES = st.lists(st.tuples(st.sampled_from(PLACES), st.booleans(), ODD), min_size=1, max_size=4)


def broken_coco(changes):
    content = sound_coco()
    for (*path, key), is_removed, value in changes:
        owner = content
        try:
            for step in path:
                owner = owner[step]
            if is_removed and isinstance(owner, dict):
                del owner[key]
            else:
                owner[key] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            pass  # what an earlier change took away
    return content


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fuzz')
    for name in ('1.png', '2.png', 'x'):
        Image.new('RGB', (WIDTH, HEIGHT)).save(folder / name, 'PNG')
    return folder


def usable(kind, path, **settings):
    """What the guard keeps of an annotation file, and the problems of the rest."""
    source = Source(name='test', type_name='', kind=kind, annotation_file=Path(path), **settings)
    listing = Listing(source=source)
    problems = list(read(source, listing, is_thorough=False))
    refuse_whole(problems, loader='test')
    left_out = [p for p in problems if p.is_refused and p.kind != 'data-set-empty']
    return listing.content, left_out


def read_instances(path, folder, counts):
    """Screen a file, and have mmdet and pycocotools use what is left."""
    from mmdet.datasets.api_wrappers import COCO

    try:
        content, problems = usable('instances', path, classes=('a', 'b'), with_masks=True)
        kept = folder / 'usable.json'
        kept.write_text(json.dumps(content))
        pipeline = [
            dict(type='LoadCheckedImage'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs'),
        ]
        data_set = dict(
            type='CocoDataset', ann_file=str(kept), data_prefix=dict(img=str(folder)),
            metainfo=dict(classes=('a', 'b')), pipeline=pipeline, test_mode=True,
            serialize_data=False,
        )  # fmt: skip
        dataset = GuardedDataset(lambda: DATASETS.build(data_set), loader='test', skipped=None)
    except DataError:
        counts['refused'] += 1
        return
    # What is left is sound: only an image can be missing, or of another size than annotated.
    for index in range(len(dataset)):
        try:
            found = dataset[index]['data_samples'].gt_instances
        except DataError as error:
            message = str(error)
            assert any(
                w in message for w in ('does not exist', 'annotated as', 'cannot be read', 'folder')
            )
            continue
        assert found.bboxes.tensor.isfinite().all()
        assert found.masks.masks.shape[1:] == (HEIGHT, WIDTH)
    api = COCO(str(kept))
    for annotation in api.anns.values():
        assert api.annToMask(annotation).sum() > 0
        assert math.isfinite(annotation['area'])
    counts['read' if not problems else 'read in part'] += 1


def fuzz_coco(number, folder):
    counts = {'read': 0, 'read in part': 0, 'refused': 0}

    @examples(number)
    @given(CHANGES)
    def check(changes):
        path = folder / 'made-up.json'
        path.write_text(json.dumps(broken_coco(changes)))
        call(read_instances, path, folder, counts)

    # pycocotools prints what it does.
    with DefaultScope.overwrite_default_scope('mmdet'), redirect_stdout(io.StringIO()):
        with bounded() as call:
            check()
    print(f'\nCOCO files: {counts}; longest {call.longest_s:.1f} s')
    assert sum(counts.values()) >= number
    # A hundred may all be damaged.
    assert all(counts.values()) or number < 1000


# --- bytes ----------------------------------------------------------------------------------------


def pictures():
    """A small picture in every format, mode by mode."""
    pixels = np.random.default_rng(0).integers(0, 255, (9, 11, 3), np.uint8)
    colour = Image.fromarray(pixels)
    for kind, modes in (
        ('JPEG', ('RGB', 'L', 'CMYK')), ('PNG', ('RGB', 'P', 'RGBA', 'I;16', '1', 'LA')),
        ('GIF', ('P',)), ('BMP', ('RGB', 'P')), ('TIFF', ('RGB', 'CMYK', 'I;16', 'F', 'P')),
        ('WEBP', ('RGB', 'RGBA')), ('PPM', ('RGB', 'L')), ('TGA', ('RGB',)), ('JPEG2000', ('RGB',)),
    ):  # fmt: skip
        assert kind in FORMATS
        for mode in modes:
            image = colour.convert('L').convert('I').convert(mode) if ';' in mode else colour
            image = image if ';' in mode else colour.convert(mode)
            for settings_ in ({}, {'compression': 'tiff_lzw'}, {'compression': 'jpeg'}):
                if settings_ and (kind != 'TIFF' or mode not in ('RGB', 'CMYK')):
                    continue
                stream = io.BytesIO()
                image.save(stream, kind, **settings_)
                yield stream.getvalue()


def label_maps():
    labels = np.random.default_rng(0).integers(0, 9, (9, 11), np.uint8)
    for mode in ('L', 'P', 'I;16', '1', 'RGB'):
        image = Image.fromarray(labels)
        image = image.convert('I').convert(mode) if mode == 'I;16' else image
        if mode == 'P':
            image.putpalette([7, 7, 7] * 256)
        for kind in ('PNG', 'TIFF'):
            stream = io.BytesIO()
            (image if mode in ('P', 'I;16') else image.convert(mode)).save(stream, kind)
            yield stream.getvalue()


PICTURES = list(pictures())
LABEL_MAPS = list(label_maps())


def checksummed(content):
    """Correct the checksums of a PNG: else its decoders would see little of what was changed."""
    if not content.startswith(b'\x89PNG\r\n\x1a\n'):
        return content
    out, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        (length,) = struct.unpack('>I', content[at : at + 4])
        body = content[at + 4 : at + 8 + length]
        out += content[at : at + 4] + body + struct.pack('>I', zlib.crc32(body))
        at += 12 + length
    return bytes(out)


@st.composite
def damaged(draw, whole):
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 6))):
        # Headers are where sizes and counts are.
        end = draw(st.sampled_from([min(64, len(content)), len(content)]))
        if end < 2:
            break
        at, how = draw(st.integers(0, end - 1)), draw(st.integers(0, 4))
        if how == 0:
            content[at] = draw(st.integers(0, 255))
        elif how == 1:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == 2:
            del content[at : at + draw(st.integers(1, 20))]
        elif how == 3:
            content[at:at] = draw(st.binary(min_size=1, max_size=9))
        else:
            content[at : at + 4] = draw(
                st.sampled_from([b'\xff' * 4, b'\0' * 4, b'\x7f\xff\xff\xff'])
            )
    return checksummed(bytes(content)) if draw(st.booleans()) else bytes(content)


def made_up(whole):
    return st.one_of(damaged(whole), damaged(whole), damaged(whole), st.binary(max_size=200))


def fuzz_bytes(number, folder, read_file, check, strategy, *, what):
    counts = {'read': 0, 'refused': 0}
    path = folder / 'made-up.bin'

    @examples(number)
    @given(strategy)
    def run(content):
        path.write_bytes(content)
        try:
            found = call(read_file, str(path))
        except DataError as error:
            assert str(error).isprintable() and 'made-up.bin' in str(error)
            counts['refused'] += 1
        else:
            check(found)
            counts['read'] += 1

    with bounded() as call:
        run()
    print(f'\n{what}: {counts}; longest {call.longest_s:.1f} s')
    assert sum(counts.values()) >= number and all(counts.values())


def check_image(image):
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


def read_map(path):
    results = dict(seg_map_path=path, ori_shape=(9, 11), seg_fields=[])
    return LoadCheckedAnnotations(num_classes=200).transform(results)['gt_seg_map']


def check_map(labels):
    assert labels.shape == (9, 11) and labels.dtype == np.uint8
    assert ((labels < 200) | (labels == 255)).all()


LINES = st.lists(
    st.one_of(st.just(b'a b.jpg 3'), st.binary(max_size=12), st.text(max_size=12).map(
        lambda text: text.encode('utf-8', 'surrogatepass')
    )), max_size=5
).map(b'\n'.join)  # fmt: skip


def check_lines(found):
    for line in found[0]:
        name, label = line.rsplit(' ', 1)
        assert name and 0 <= int(label) < 10


@pytest.mark.parametrize('number', [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
class TestFuzz:
    def test_coco_files(self, number, folder):
        fuzz_coco(number, folder)

    def test_images(self, number, folder):
        fuzz_bytes(number, folder, read_image, check_image, made_up(PICTURES), what='images')

    def test_label_maps(self, number, folder):
        fuzz_bytes(number, folder, read_map, check_map, made_up(LABEL_MAPS), what='label maps')

    def test_lists_of_files(self, number, folder):
        read_list = partial(usable, 'image folder', num_classes=10, folders={'img_path': folder})
        fuzz_bytes(number, folder, read_list, check_lines, LINES, what='lists of files')
