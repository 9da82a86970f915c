"""InstaBoost: agreement of image, masks, boxes and label map, and input the package fails on."""

import random
import sys

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS
from pycocotools import mask as coco_mask

import projects.htc_plus_plus  # noqa: F401
from projects.htc_plus_plus.instaboost_package import exact_rates, uncompressed_rle
from swinv2_mm.errors import UserError

pytest.importorskip('mmdet.datasets')
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

HEIGHT, WIDTH = 120, 160
GREY = 90
# Far apart in every channel, so that blended edges are told from the insides.
COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)]


def build(**settings):
    pytest.importorskip('instaboostfast')
    return TRANSFORMS.build({'type': 'CheckedInstaBoost', 'apply_rate': 1.0, **settings})


def scene(boxes, ignored=()):
    """Letters L of one colour each on grey; labels of the map are 10, 11, ..."""
    image = np.full((HEIGHT, WIDTH, 3), GREY, dtype=np.uint8)
    labels = np.full((HEIGHT, WIDTH), 1, dtype=np.uint16)
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), dtype=np.uint8)
    for i, (x, y, w, h) in enumerate(boxes):
        masks[i, y : y + h, x : x + max(1, w // 3)] = 1
        masks[i, y + h - max(1, h // 3) : y + h, x : x + w] = 1
        image[masks[i] > 0] = COLOURS[i % len(COLOURS)]
        labels[masks[i] > 0] = 10 + i
    gt_masks = BitmapMasks(masks, HEIGHT, WIDTH)
    return {
        'img': image,
        'gt_bboxes': HorizontalBoxes([[x, y, x + w, y + h] for x, y, w, h in boxes]),
        'gt_bboxes_labels': np.arange(len(boxes)),
        'gt_ignore_flags': np.isin(np.arange(len(boxes)), ignored),
        'gt_masks': gt_masks,
        'gt_seg_map': labels,
    }


def seeded(transform, results, seed):
    random.seed(seed)
    np.random.seed(seed)
    return transform(results)


def tight_box(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


BOXES = [(20, 20, 40, 30), (90, 60, 30, 45), (30, 75, 36, 30)]


@pytest.mark.parametrize('action', ['normal', 'horizontal', 'vertical'])
@pytest.mark.parametrize('seed', range(4))
def test_image_masks_boxes_and_labels_agree(action, seed):
    rates = {'skip': 1e-6, action: 1.0}
    boost = build(color_rate=0.0, action_rates=rates, shift_divisor=4, max_rotation_deg=10)
    before = scene(BOXES)
    after = seeded(boost, scene(BOXES), seed)
    masks = after['gt_masks'].masks
    assert after['num_lost_instances'] == 0 and len(masks) == 3
    assert (masks != before['gt_masks'].masks).any(axis=(1, 2)).all()
    image = after['img'].astype(int)
    for i, label in enumerate(after['gt_bboxes_labels']):
        near = np.abs(image - COLOURS[label]).max(axis=-1)
        inside = near[masks[i] > 0]
        # Nearly all of a mask shows the instance; the image's edges are interpolated.
        assert (inside < 60).mean() > 0.85
        # And the instance's colour is nowhere else.
        assert ((near < 30) & (masks[i] == 0)).sum() < 0.05 * masks[i].sum()
        assert after['gt_bboxes'].tensor[i].tolist() == tight_box(masks[i])
        assert (after['gt_seg_map'][masks[i] > 0] == 10 + label).all()
    anywhere, somewhere = masks.any(axis=0), before['gt_masks'].masks.any(axis=0)
    labels = after['gt_seg_map']
    assert (labels[somewhere & ~anywhere] == 255).all()
    assert (labels[~somewhere & ~anywhere] == 1).all()
    assert (np.abs(image[~somewhere & ~anywhere] - GREY).max(axis=-1) > 60).mean() < 0.02


def test_flips_turn_the_mask_round():
    """An L that is flipped and nothing else: its mirror image in the same place."""
    flip = build(
        color_rate=0.0, action_rates={'skip': 1e-6, 'horizontal': 1.0}, scale=(1.0, 1.0),
        shift_divisor=1000, max_rotation_deg=0,
    )  # fmt: skip
    before = scene(BOXES[:1])
    after = seeded(flip, scene(BOXES[:1]), 0)
    x1, y1, x2, y2 = tight_box(before['gt_masks'].masks[0])
    old = before['gt_masks'].masks[0, y1:y2, x1:x2]
    assert np.array_equal(after['gt_masks'].masks[0, y1:y2, x1:x2], old[:, ::-1])
    assert after['gt_masks'].masks.sum() == old.sum()


def test_overlapping_instances_move_together_and_what_is_covered_is_not_seen():
    boost = build(color_rate=0.0, shift_divisor=2, max_rotation_deg=0, scale=(1.0, 1.0))
    close = [(40, 30, 30, 30), (72, 30, 30, 30)]
    met = 0
    for seed in range(12):
        after = seeded(boost, scene(close), seed)
        masks = after['gt_masks'].masks
        assert (masks.sum(axis=0) <= 1).all()
        met += masks.sum() < scene(close)['gt_masks'].masks.sum()
    assert met > 0, 'no move made them meet'
    overlapping = scene([(40, 30, 40, 40), (44, 34, 40, 30)])
    before = overlapping['gt_masks'].masks.astype(bool)
    masks = seeded(boost, overlapping, 1)['gt_masks'].masks.astype(bool)
    assert (masks[0] & masks[1]).sum() == (before[0] & before[1]).sum() > 0


def test_lost_instances_leave_all_annotations_and_are_counted():
    boost = build(color_rate=0.0, scale=(0.3, 0.4))
    dots = [(20 + 12 * i, 30, 1, 1) for i in range(8)] + [(30, 70, 40, 30)]
    lost = 0
    for seed in range(5):
        after = seeded(boost, scene(dots), seed)
        kept = after['gt_bboxes_labels']
        assert len(kept) + after['num_lost_instances'] == len(dots)
        assert len(after['gt_masks']) == len(after['gt_bboxes']) == len(kept)
        assert len(after['gt_ignore_flags']) == len(kept) and 8 in kept
        assert after['gt_masks'].masks.any(axis=(1, 2)).all()
        lost += after['num_lost_instances']
    assert lost > 0


def test_ignored_and_empty_instances_stay():
    boost = build(color_rate=0.0)
    results = scene(BOXES, ignored=[1])
    results['gt_masks'].masks[2] = 0
    after = seeded(boost, results, 0)
    before = scene(BOXES)
    assert len(after['gt_masks']) == 3
    assert np.array_equal(after['gt_masks'].masks[1], before['gt_masks'].masks[1])
    assert not after['gt_masks'].masks[2].any()
    assert after['gt_bboxes'].tensor[1:].tolist() == before['gt_bboxes'].tensor[1:].tolist()
    assert not np.array_equal(after['gt_masks'].masks[0], before['gt_masks'].masks[0])


@pytest.mark.parametrize('kind', ['polygon', 'compressed', 'uncompressed'])
def test_every_kind_of_annotation(kind):
    """Through mmdet's loading: polygons and both kinds of RLE of instances that are not crowds."""
    before = scene(BOXES)
    instances = []
    for box, mask in zip(BOXES, before['gt_masks'].masks, strict=True):
        x, y, w, h = box
        encoded = coco_mask.encode(np.asfortranarray(mask))
        annotation = {
            'polygon': [[x, y, x + w, y, x + w, y + h, x, y + h]],
            'compressed': {'size': encoded['size'], 'counts': encoded['counts'].decode()},
            'uncompressed': uncompressed_rle(mask),
        }[kind]
        instances.append(
            {'bbox': [x, y, x + w, y + h], 'bbox_label': 0, 'ignore_flag': 0, 'mask': annotation}
        )
    results = {'img': before['img'], 'ori_shape': (HEIGHT, WIDTH), 'instances': instances}
    results = LoadAnnotations(with_bbox=True, with_mask=True)(results)
    loaded = results['gt_masks'].masks.copy()
    after = seeded(build(), results, 0)
    assert len(after['gt_masks']) == 3 and not after['gt_ignore_flags'].any()
    assert (after['gt_masks'].masks != loaded).any(axis=(1, 2)).all()
    assert 'gt_seg_map' not in after


def test_nothing_to_do():
    never = build(apply_rate=0.0)
    results = scene(BOXES)
    image = results['img'].copy()
    assert np.array_equal(seeded(never, results, 0)['img'], image)
    for boxes, ignored in (([], []), (BOXES, [0, 1, 2])):
        results = scene(boxes, ignored)
        image = results['img'].copy()
        after = seeded(build(), results, 0)
        assert np.array_equal(after['img'], image) and len(after['gt_masks']) == len(boxes)


def test_more_instances_than_the_package_can_number():
    dots = [(2 + 7 * (i % 22), 2 + 8 * (i // 22), 3, 3) for i in range(260)]
    results = scene(dots)
    image = results['img'].copy()
    after = seeded(build(color_rate=1.0), results, 0)
    assert np.array_equal(after['img'], image) and len(after['gt_masks']) == 260


def test_the_seed_decides():
    one, other = (seeded(build(color_rate=1.0), scene(BOXES), 7) for _ in range(2))
    assert np.array_equal(one['img'], other['img'])
    assert np.array_equal(one['gt_masks'].masks, other['gt_masks'].masks)
    assert not np.array_equal(one['img'], seeded(build(), scene(BOXES), 8)['img'])


def test_polygon_masks_are_refused():
    results = scene(BOXES)
    results['gt_masks'] = PolygonMasks([[np.zeros(6)]] * 3, HEIGHT, WIDTH)
    with pytest.raises(UserError, match='poly2mask'):
        build()(results)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'instaboostfast', None)
    with pytest.raises(UserError, match='pip install instaboostfast'):
        TRANSFORMS.build({'type': 'CheckedInstaBoost'})


def test_the_backend_of_matplotlib_is_not_changed(monkeypatch):
    import matplotlib.pyplot as plt

    pytest.importorskip('instaboostfast')
    plt.switch_backend('svg')
    try:
        for name in [n for n in sys.modules if n.split('.')[0] == 'instaboostfast']:
            monkeypatch.delitem(sys.modules, name)
        TRANSFORMS.build({'type': 'CheckedInstaBoost'})
        assert 'instaboostfast' in sys.modules
        assert plt.get_backend() == 'svg'
    finally:
        plt.switch_backend('agg')


def awkward_rates():
    generator = np.random.default_rng(0)
    yield {'normal': 0.6, 'horizontal': 0.3, 'skip': 0.1}
    yield {'normal': 1, 'horizontal': 1, 'vertical': 1}
    for _ in range(300):
        values = generator.random(4) ** 3
        yield dict(zip(('normal', 'horizontal', 'vertical', 'skip'), values, strict=True))


def test_rates_add_up_as_the_package_asserts():
    package = pytest.importorskip('instaboostfast')
    from instaboostfast.single_image_process import get_transform

    edge = {'noflip': 1, 'bbox_w': 10, 'bbox_h': 10}
    for rates in awkward_rates():
        actions, exact = exact_rates(rates)
        np.testing.assert_allclose(exact, np.array(list(rates.values())) / sum(rates.values()),
                                   atol=1e-5)  # fmt: skip
        config = package.InstaBoostConfig(actions, exact)
        get_transform(np.zeros((4, 4, 4)), edge, config)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'action_rates': {'shear': 1.0}}, 'shear'),
        ({'action_rates': {'horizontal': 1.0}}, 'normal or skip'),
        ({'action_rates': {'normal': -1.0, 'skip': 2.0}}, 'not be negative'),
        ({'apply_rate': 1.5}, 'apply_rate'),
        ({'color_rate': -0.1}, 'color_rate'),
        ({'scale': (1.2, 0.8)}, 'scale'),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
