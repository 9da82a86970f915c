"""The demo's data set: its content, and when it is generated again."""

import contextlib
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('skimage')
pytest.importorskip('sklearn')
COCO = pytest.importorskip('pycocotools.coco').COCO

from pycocotools.cocoeval import COCOeval  # noqa: E402

from projects.digits import files, photographs, scenes  # noqa: E402
from projects.digits.dataset import (  # noqa: E402
    CLASSES,
    make_digits_on_photos,
)
from projects.digits.mask_polygons import mask_to_polygons  # noqa: E402

SPLITS = ('train', 'val')
SMALL = {
    'num_train': 24,
    'num_val': 12,
    'image_size_px': 128,
    'num_train_crops_per_class': 3,
    'num_val_crops_per_class': 2,
    'crop_size_px': 48,
    'progress': False,
}
TINY = {
    'num_train': 2,
    'num_val': 1,
    'image_size_px': 64,
    'num_train_crops_per_class': 1,
    'num_val_crops_per_class': 1,
    'crop_size_px': 32,
    'progress': False,
}


def files_of(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def load_coco(root, split):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / 'annotations' / f'{split}.json'))


def rasterise(polygons, *, size):
    height, width = size
    coco = COCO()
    coco.imgs = {1: {'height': height, 'width': width}}
    return coco.annToMask({'image_id': 1, 'segmentation': polygons}).astype(bool)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_digits_on_photos(tmp_path_factory.mktemp('data') / 'digits', **SMALL)


def test_layout_and_sizes(root):
    for split, count in (('train', SMALL['num_train']), ('val', SMALL['num_val'])):
        images = sorted((root / 'images' / split).iterdir())
        labels = sorted((root / 'label_maps' / split).iterdir())
        assert [p.suffix for p in images] == ['.jpg'] * count
        assert [p.stem for p in labels] == [p.stem for p in images]
        with Image.open(images[0]) as image, Image.open(labels[0]) as label:
            assert (image.mode, image.size) == ('RGB', (128, 128))
            assert (label.mode, label.size) == ('L', (128, 128))
    readme = (root / 'README.txt').read_text()
    assert all(source.file in readme for source in photographs.available_sources())
    assert 'UCI' in readme


def test_image_folder_counts(root):
    for split in SPLITS:
        folders = sorted(p.name for p in (root / 'folders' / split).iterdir())
        assert folders == sorted(CLASSES)
        for name in CLASSES:
            files = list((root / 'folders' / split / name).glob('*.jpg'))
            assert len(files) == SMALL[f'num_{split}_crops_per_class']
            with Image.open(files[0]) as image:
                assert image.size == (48, 48)


@pytest.mark.parametrize('split', SPLITS)
def test_annotations_are_complete(root, split):
    coco = load_coco(root, split)
    assert {c['id']: c['name'] for c in coco.loadCats(coco.getCatIds())} == dict(
        enumerate(CLASSES, start=1)
    )
    per_image = Counter(a['image_id'] for a in coco.anns.values())
    assert set(per_image) == set(coco.imgs)
    assert set(per_image.values()) <= {1, 2, 3, 4, 5}
    assert len(set(per_image.values())) >= 3
    for image in coco.imgs.values():
        assert (root / 'images' / split / image['file_name']).is_file()
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        left, top, width, height = annotation['bbox']
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert annotation['area'] == mask.sum()
        assert annotation['iscrowd'] == 0
        assert all(len(p) >= 6 and len(p) % 2 == 0 for p in annotation['segmentation'])


@pytest.mark.parametrize('split', SPLITS)
def test_truth_against_truth_scores_full_mask_and_box_ap(root, split):
    coco = load_coco(root, split)
    results = [
        {
            'image_id': a['image_id'],
            'category_id': a['category_id'],
            'score': 0.9,
            'segmentation': coco.annToRLE(a),
            'bbox': a['bbox'],
        }
        for a in coco.anns.values()
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in ('segm', 'bbox'):
            evaluation = COCOeval(coco, coco.loadRes([dict(r) for r in results]), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            assert evaluation.stats[0] > 0.99


@pytest.mark.parametrize('split', SPLITS)
def test_label_maps_are_the_instances(root, split):
    coco = load_coco(root, split)
    for image_id, image in coco.imgs.items():
        painted = np.zeros((image['height'], image['width']), dtype=np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(image_id)):
            mask = coco.annToMask(annotation).astype(bool)
            assert not painted[mask].any()  # visible masks do not overlap
            painted[mask] = annotation['category_id']
        name = image['file_name'].replace('.jpg', '.png')
        labels = np.asarray(Image.open(root / 'label_maps' / split / name))
        np.testing.assert_array_equal(painted, labels)


@pytest.mark.parametrize('split', SPLITS)
def test_classes_are_balanced(root, split):
    counts = Counter(a['category_id'] for a in load_coco(root, split).anns.values())
    assert set(counts) == set(range(1, 11))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_objects_stand_out_from_what_is_around(root):
    contrasts = []
    coco = load_coco(root, 'train')
    for image_id, image in coco.imgs.items():
        grey = np.asarray(
            Image.open(root / 'images/train' / image['file_name']).convert('L'), dtype=float
        )
        for annotation in coco.loadAnns(coco.getAnnIds(image_id)):
            left, top, width, height = annotation['bbox']
            box = np.s_[top : top + height, left : left + width]
            mask = coco.annToMask(annotation)[box].astype(bool)
            if not mask.all():
                contrasts.append(abs(np.median(grey[box][mask]) - np.median(grey[box][~mask])))
    assert np.median(contrasts) > 60


def test_backgrounds_are_not_flat(root):
    for path in (root / 'images' / 'train').iterdir():
        labels = np.asarray(Image.open(root / 'label_maps/train' / f'{path.stem}.png'))
        assert np.asarray(Image.open(path))[labels == 0].std() > 2


def test_splits_share_no_digit_sample(monkeypatch, tmp_path):
    drawn = {split: set() for split in SPLITS}
    samples = scenes.load_digits().images / 16
    index_of = {sample.tobytes(): i for i, sample in enumerate(samples)}

    class Spy(scenes.DigitPool):
        def __init__(self, split, *, rng):
            super().__init__(split, rng=rng)
            self.split = split

        def draw(self, digit):
            sample = super().draw(digit)
            drawn[self.split].add(index_of[sample.tobytes()])
            return sample

    monkeypatch.setattr(files, 'DigitPool', Spy)
    make_digits_on_photos(tmp_path / 'digits', **{**TINY, 'num_train_crops_per_class': 20})
    assert len(drawn['train']) >= 200  # none twice before all were used
    assert len(drawn['val']) >= 10
    assert not drawn['train'] & drawn['val']
    assert max(drawn['train']) < min(drawn['val'])


def test_splits_share_no_photograph_pixels(monkeypatch, tmp_path):
    # Photographs whose left two thirds are nearly black and the rest nearly white.
    pixels = np.full((300, 300, 3), 10, dtype=np.uint8)
    pixels[:, 200:] = 245
    Image.fromarray(pixels).save(tmp_path / 'photo.png')
    monkeypatch.setattr(photographs, 'source_path', lambda source: tmp_path / 'photo.png')
    root = make_digits_on_photos(tmp_path / 'digits', **TINY)
    for split, expected in (('train', 10), ('val', 245)):
        for path in (root / 'images' / split).iterdir():
            labels = np.asarray(Image.open(root / 'label_maps' / split / f'{path.stem}.png'))
            background = np.asarray(Image.open(path).convert('L'))[labels == 0]
            assert abs(np.median(background) - expected) <= 2
            assert np.mean(np.abs(background - float(expected)) > 60) < 0.1


def test_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    first = files_of(make_digits_on_photos(tmp_path / 'a', **TINY))
    again = files_of(make_digits_on_photos(tmp_path / 'b', **TINY))
    other = files_of(make_digits_on_photos(tmp_path / 'c', **TINY, seed=1))
    assert first == again
    assert first.keys() == other.keys()
    jpegs = [name for name in first if name.endswith('.jpg')]
    assert all(first[name] != other[name] for name in jpegs)


def test_val_does_not_depend_on_the_size_of_train(tmp_path):
    small = files_of(make_digits_on_photos(tmp_path / 'a', **TINY))
    large = files_of(make_digits_on_photos(tmp_path / 'b', **{**TINY, 'num_train': 4}))
    assert all(small[name] == large[name] for name in small if '/val' in name)


def test_polygons_give_back_any_mask():
    rng = np.random.default_rng(0)
    nested = np.zeros((24, 24), dtype=bool)
    for border in range(0, 12, 2):
        nested[border : 24 - border, border : 24 - border] ^= True
    touching = np.zeros((9, 9), dtype=bool)
    touching[[0, 1, 8], [0, 1, 8]] = True
    full = np.ones((5, 7), dtype=bool)
    noise = [rng.random((20, 20)) < rate for rate in (0.2, 0.5, 0.8)]
    for mask in (nested, touching, full, *noise):
        np.testing.assert_array_equal(rasterise(mask_to_polygons(mask), size=mask.shape), mask)
