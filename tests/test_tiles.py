"""Large images in tiles: detections merged across borders, label maps blended in strips."""

from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from PIL import Image
from pycocotools import mask as coco_mask

from swinv2_mm.datasets.image_files import read_image
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.inference.class_names import Classes
from swinv2_mm.inference.drawing import draw_prediction
from swinv2_mm.inference.label_map_files import open_label_map
from swinv2_mm.inference.label_strips import LogitBlender
from swinv2_mm.inference.large_images import ArrayRows, open_rows
from swinv2_mm.inference.prediction import Prediction
from swinv2_mm.inference.run_lengths import encode_runs, mask_runs, runs_box, sample_runs, union
from swinv2_mm.inference.tile_grid import TileGrid, Tiling, blending_weights
from swinv2_mm.inference.tile_merging import DetectionMerger, Detections
from swinv2_mm.inference.tiles import predict_in_tiles
from swinv2_mm.ordered_map import read_ahead

CLASSES = Classes(('red', 'green', 'blue'), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


@pytest.mark.parametrize('length', [1, 63, 64, 65, 100, 127, 128, 1000, 20_000])
@pytest.mark.parametrize(('tile', 'overlap'), [(64, 0), (64, 16), (64, 32), (1024, 128)])
def test_tiles_cover_a_side(length, tile, overlap):
    spans = Tiling(tile, overlap).spans(length)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(stop - start == min(tile, length) for start, stop in spans)
    for (_, stop), (start, _) in pairwise(spans):
        assert stop - start >= overlap and (overlap or stop >= start)
    total = np.zeros(length)
    for weights, (start, stop) in zip(blending_weights(spans), spans, strict=True):
        assert weights.min() > 0
        total[start:stop] += weights
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_tilings_that_make_no_sense():
    assert Tiling.of(1024) == Tiling(1024, 256)
    for tile, overlap in ((16, 0), (64, -1), (64, 33)):
        with pytest.raises(UserError, match=r'tile|overlap'):
            Tiling(tile, overlap)


def test_masks_as_runs():
    """Runs at a place give the RLE that pycocotools gives for the whole image."""
    generator = np.random.default_rng(0)
    for number in range(40):
        height, width = generator.integers(1, 30, 2)
        h, w = generator.integers(1, height + 1), generator.integers(1, width + 1)
        top, left = generator.integers(0, height - h + 1), generator.integers(0, width - w + 1)
        wholes, runs = [], []
        for _ in range(2):
            mask = generator.random((h, w)) < (0, 0.5, 1, 0.9)[number % 4]
            whole = np.zeros((height, width), bool)
            whole[top : top + h, left : left + w] = mask
            wholes.append(whole)
            runs.append(mask_runs(mask, left=left, top=top, height=height))
        for whole, run in ((wholes[0], runs[0]), (wholes[0] | wholes[1], union(runs))):
            assert encode_runs(run, size=(height, width)) == coco_mask.encode(
                np.asfortranarray(whole)
            )
            part, x, y = sample_runs(run, size=(height, width), stride=1)
            drawn = np.zeros_like(whole)
            drawn[y : y + part.shape[0], x : x + part.shape[1]] = part
            assert (drawn == whole).all()
            rows, columns = (height // 3, height), (0, width - width // 3)
            seen = np.argwhere(whole[rows[0] :, : columns[1]])
            box = runs_box(run, height=height, rows=rows, columns=columns)
            if len(seen):
                (y0, x0), (y1, x1) = seen.min(0), seen.max(0)
                assert box == (x0, y0 + rows[0], x1 + 1, y1 + rows[0] + 1)
            else:
                assert box == (0, 0, 0, 0)
    # More pixels than fit in 32 bits with a sign.
    rle = encode_runs(
        mask_runs(np.ones((5, 7), bool), left=59_000, top=59_000, height=60_000),
        size=(60_000, 60_000),
    )
    assert coco_mask.area(rle) == 35 and coco_mask.toBbox(rle).tolist() == [59_000, 59_000, 7, 5]


def scene(seed, size=(260, 340), count=14):
    """An image of ellipses and rectangles that touch nothing, each in a colour of its own."""
    generator = np.random.default_rng(seed)
    image, taken = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    for number in range(1, count + 1):
        for _ in range(50):
            longest = 130 if number < 4 else 40
            half = tuple(int(v) for v in generator.integers(3, longest // 2, 2))
            centre = tuple(int(generator.integers(0, side)) for side in size[::-1])
            shape = np.zeros(size, np.uint8)
            if number % 2:
                angle = int(generator.integers(0, 180))
                cv2.ellipse(shape, centre, half, angle, 0, 360, 1, -1)
            else:
                corners = [
                    tuple(int(c + s * h) for c, h in zip(centre, half, strict=True))
                    for s in (-1, 1)
                ]
                cv2.rectangle(shape, *corners, 1, -1)
            if not (taken & cv2.dilate(shape, np.ones((5, 5), np.uint8))).any():
                taken |= shape
                image[shape > 0] = (number, 255 - number, 100)
                break
    return image


def find_shapes(image):
    """A detector of these shapes: what it says of a pixel does not depend on others."""
    colours = [number for number in np.unique(image[..., 0]) if number]
    masks = np.array([image[..., 0] == number for number in colours]).reshape(-1, *image.shape[:2])
    boxes = []
    for mask in masks:
        (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
        boxes.append([left, top, right, bottom])
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([0.9 - 0.01 * number for number in colours]),
        labels=torch.tensor([number % 3 for number in colours], dtype=torch.long),
        masks=torch.from_numpy(masks),
    )


def detect(tiles, with_masks=True):
    for tile in tiles:
        found = find_shapes(tile)
        if not with_masks:
            found.pop('masks')
        yield Prediction(tile, tile, SimpleNamespace(pred_instances=found), 'detection', CLASSES)


def detections_in_tiles(image, tiling, predict=detect):
    return predict_in_tiles(image, tiling, task='detection', classes=CLASSES, predict=predict)


@pytest.mark.parametrize('overlap', [16, 32])
def test_detections_in_tiles_equal_those_of_the_whole(overlap):
    """Small and large objects, on borders and corners of tiles: same boxes, scores and masks."""
    for seed in range(4):
        image = scene(seed)
        (whole,) = detect([image])
        found = detections_in_tiles(image, Tiling(64, overlap))
        assert len(whole.sample.pred_instances) >= 10
        assert found.to_dict() == whole.to_dict()
    assert (draw_prediction(found.reduced) == draw_prediction(whole)).all()


def test_objects_within_the_overlap_need_no_masks():
    image = np.zeros((300, 300, 3), np.uint8)
    for number, place in enumerate(np.ndindex(9, 9), start=1):
        top, left = 3 + 33 * np.array(place)
        image[top : top + 20, left : left + 24] = number
    whole = next(detect([image], with_masks=False))
    found = detections_in_tiles(
        image, Tiling(64, 32), lambda tiles: detect(tiles, with_masks=False)
    )
    assert found.to_dict() == whole.to_dict() and len(found.detections) == 81


def merged(*tiles, size=(64, 112)):
    """Merge boxes (left, top, right, bottom, score) of two tiles that overlap by 16 columns."""
    merger = DetectionMerger(size)
    for rows, columns in zip(tiles, ((0, 64), (48, 112)), strict=True):
        values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
        labels = torch.zeros(len(values), dtype=torch.long)
        found = Detections(values[:, :4], values[:, 4].float(), labels)
        merger.add(found, rows=(0, 64), columns=columns)
    found = merger.merge()
    return [[round(v, 2) for v in (*box, score)] for box, score in zip(
        found.boxes.tolist(), found.scores.tolist(), strict=True)]  # fmt: skip


def test_what_is_merged_and_what_is_not():
    # Two that are whole: the surer one, if they are nearly the same.
    assert merged([[50, 10, 60, 20, 0.6]], [[51, 10, 60, 20, 0.8]]) == [[51, 10, 60, 20, 0.8]]
    assert len(merged([[50, 10, 60, 20, 0.6]], [[50, 10, 60, 50, 0.8]])) == 2
    # A part gives way to the whole, also where the part has the higher score.
    assert merged([[40, 10, 64, 20, 0.9]], [[49, 11, 100, 20, 0.8]])[0][:4] == [40, 10, 100, 20]
    assert merged([[30, 10, 60, 20, 0.7]], [[48, 10, 60, 20, 0.9]]) == [[30, 10, 60, 20, 0.7]]
    # What a model is hardly sure of neither removes nor enlarges what it is sure of.
    assert len(merged([[30, 10, 60, 20, 0.1]], [[48, 10, 60, 20, 0.9]])) == 2
    assert len(merged([[0, 10, 64, 20, 0.9]], [[48, 10, 112, 20, 0.1]])) == 2
    # One that lies whole within a part is another object.
    assert len(merged([[0, 0, 64, 64, 0.9]], [[52, 20, 58, 30, 0.9]])) == 2
    assert merged([], []) == []


def logits_of(image):
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)


def segment(tiles):
    for tile in tiles:
        sample = SimpleNamespace(seg_logits=PixelData(data=logits_of(tile)))
        yield Prediction(tile, tile, sample, 'segmentation', CLASSES)


@pytest.mark.parametrize('size', [(200, 310), (64, 500), (70, 64), (2, 9000)])
def test_label_map_in_tiles_equals_that_of_the_whole(size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = predict_in_tiles(
        image, Tiling(64, 16), task='segmentation', classes=CLASSES, predict=segment,
    )  # fmt: skip
    expected = logits_of(image).argmax(0).numpy()
    assert found.label_map.dtype == np.uint8 and (found.label_map == expected).all()
    stride = 1 if max(size) < 4096 else 2
    assert (found.reduced.label_map == expected[stride // 2 :: stride, stride // 2 :: stride]).all()
    assert found.reduced.image.shape[:2] == found.reduced.label_map.shape
    shares = found.to_dict()['shares']
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4) and len(shares) == 3


def test_logits_are_blended():
    """As with arrays of the whole image, where tiles say different things of one pixel."""
    grid = TileGrid((150, 130), Tiling(64, 24))
    logits = torch.randn(len(grid), 4, 64, 64, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(4, *grid.size)
    places = [(row, column) for row in range(len(grid.rows)) for column in range(len(grid.columns))]
    for (row, column), tile in zip(places, logits, strict=True):
        weights = np.outer(blending_weights(grid.rows)[row], blending_weights(grid.columns)[column])
        total[:, slice(*grid.rows[row]), slice(*grid.columns[column])] += tile * weights
    strips = []
    blender = LogitBlender(grid, on_strip=strips.append, dtype=np.uint8, threshold=None)
    for tile in logits:
        blender.add(tile)
    assert (np.concatenate(strips) == total.argmax(0).numpy()).mean() > 0.999
    strips.clear()
    blender = LogitBlender(grid, on_strip=strips.append, dtype=np.uint8, threshold=0.3)
    for tile in logits[:, :1]:
        blender.add(tile)
    assert (np.concatenate(strips) == (total[0] > 0.3).numpy()).mean() > 0.999


@pytest.mark.parametrize('count', [3, 300])
def test_label_map_file_in_strips(count, tmp_path):
    classes = Classes(tuple(map(str, range(count))), tuple((k % 256, 1, 2) for k in range(count)))
    labels = np.random.default_rng(0).integers(0, count, (50, 33)).astype(np.uint16)
    path = tmp_path / 'map.png'
    with open_label_map(
        path, ArrayRows(np.zeros((50, 33, 3), np.uint8)), classes=classes
    ) as writer:
        for start in range(0, 50, 20):
            writer.write(labels[start : start + 20])
    with Image.open(path) as image:
        assert (np.asarray(image) == labels).all()
        if count == 3:
            assert (np.asarray(image.convert('RGB'))[..., 0] == labels).all()


def test_reads_ahead():
    taken = []

    def items():
        for number in range(6):
            taken.append(number)
            yield number
        raise DataError('the end')

    found = read_ahead(items(), num_ahead=2)
    assert next(found) == 0
    assert next(found) == 1 and len(taken) <= 4
    assert [next(found) for _ in range(4)] == [2, 3, 4, 5]
    with pytest.raises(DataError):
        next(found)
    assert list(read_ahead(range(5), num_ahead=3)) == list(range(5))


def test_broken_and_large_files(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    Image.fromarray(scene(0)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match='cannot be read'):
        open_rows(path)
    # More pixels than an image may have that goes through the model as a whole.
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 50)
    Image.new('L', (400, 2)).save(path)
    with open_rows(path) as rows:
        assert rows.size == (2, 400)


def write_tiff(path, values, **settings):
    """Write bands (n, H, W) through rasterio."""
    rasterio = pytest.importorskip('rasterio')
    count, height, width = values.shape
    with rasterio.open(
        path, 'w', driver='GTiff', width=width, height=height, count=count, dtype=values.dtype,
        tiled=True, blockxsize=64, blockysize=64, **settings,
    ) as file:  # fmt: skip
        file.write(values)
    return path


def test_tiff_by_windows(tmp_path):
    """What is read by windows is what ``read_image`` reads of the whole."""
    image = scene(2, size=(150, 170))
    bands = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
    extra = np.concatenate([bands, bands[:1]])
    files = {
        'rgb': write_tiff(tmp_path / 'rgb.tif', bands, compress='deflate'),
        'ycbcr': write_tiff(tmp_path / 'y.tif', bands, compress='jpeg', photometric='ycbcr'),
        'deep': write_tiff(tmp_path / 'deep.tif', bands.astype(np.uint16) * 257),
        'grey': write_tiff(tmp_path / 'grey.tif', bands[:1]),
        'alpha': write_tiff(tmp_path / 'alpha.tif', extra, photometric='rgb'),
    }
    for name in ('palette', 'turned', 'white'):
        files[name] = tmp_path / f'{name}.tif'
    Image.fromarray(image[..., ::-1]).quantize(16).save(files['palette'])
    Image.fromarray(image[..., ::-1]).save(files['turned'], tiffinfo={274: 6})
    Image.fromarray(image[..., 1]).save(files['white'], tiffinfo={262: 0})
    for name, path in files.items():
        with open_rows(path) as rows:
            assert isinstance(rows, ArrayRows) == (name in ('turned', 'white')), name
            assert not rows.georeference
            found = np.concatenate([rows.rows(top, min(top + 64, rows.size[0])) for top in range(
                0, rows.size[0], 64)])  # fmt: skip
        if name == 'deep':  # of 16 bits Pillow reads grey ones only
            assert (found == image).all()
        else:
            difference = abs(found.astype(int) - read_image(str(path)))
            # Decoders differ in how they enlarge chroma.
            assert difference.mean() < 2 if name == 'ycbcr' else not difference.any()
    five = write_tiff(tmp_path / 'five.tif', np.concatenate([bands, bands[:2]]))
    named = write_tiff(tmp_path / 'named.tif', extra[::-1])
    rasterio = pytest.importorskip('rasterio')
    with rasterio.open(named, 'r+') as file:
        colours = ('undefined', 'blue', 'green', 'red')
        file.colorinterp = [rasterio.enums.ColorInterp[colour] for colour in colours]
    twelve = write_tiff(tmp_path / 'twelve.tif', bands.astype(np.uint16) * 16 + 15, nbits=12)
    for path in (five, named, twelve):
        with open_rows(path) as rows:
            assert (rows.rows(0, 150) == image).all(), path
    with open_rows(write_tiff(tmp_path / 'four.tif', bands[:1] >> 4, nbits=4)) as rows:
        assert (rows.rows(0, 150)[..., 0] == (bands[0] >> 4) * 17).all()
    for values in (bands.astype(np.float32), bands[:1].astype(np.int32)):
        with (
            pytest.raises(DataError, match='8 or 16 bits'),
            open_rows(write_tiff(tmp_path / 'float.tif', values)),
        ):
            pass
    content = files['rgb'].read_bytes()
    (tmp_path / 'cut.tif').write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r'cut\.tif'), open_rows(tmp_path / 'cut.tif') as rows:
        rows.rows(0, 150)


def test_label_map_of_a_geotiff_lies_where_the_image_does(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    place = {
        'crs': 'EPSG:2056',
        'transform': rasterio.Affine(0.1, 0, 2_600_000, 0, -0.1, 1_200_000),
    }
    image = scene(3, size=(150, 170))
    bands = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
    path = write_tiff(tmp_path / 'a.tif', bands, **place)
    found = predict_in_tiles(
        path, Tiling(64, 16), task='segmentation', classes=CLASSES, predict=segment,
        open_writer=lambda rows: open_label_map(tmp_path / 'map', rows, classes=CLASSES),
    )  # fmt: skip
    assert found.label_map is None
    with rasterio.open(tmp_path / 'map') as file:
        assert file.crs == place['crs'] and file.transform == place['transform']
        assert (file.read(1) == logits_of(image).argmax(0).numpy()).all()
        assert file.colormap(1)[1] == (0, 255, 0, 255)
