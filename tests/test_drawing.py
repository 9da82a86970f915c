"""Visualization of predictions: speed, sizes, what covers what, and text that can be read."""

import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

import swinv2_mm.models  # noqa: F401
from swinv2_mm.datasets.palette import class_colour, class_colours, text_colour
from swinv2_mm.inference import Prediction
from swinv2_mm.inference.class_names import Classes
from swinv2_mm.inference.drawing import draw_beside_truth, draw_prediction, picture_scale
from swinv2_mm.inference.output_folder import encode_jpeg
from swinv2_mm.inference.text_labels import TextLabels

NAMES = ('a dog', 'chat', '猫', 'x' * 200, 'two\nlines', '\ud800')
CLASSES = Classes(NAMES, tuple(class_colours(len(NAMES))))
OPACITY = 0.45


def instances(boxes, *, size, labels=None, scores=None, with_masks=True):
    """A detection per box (left, top, right, bottom), each box full of its mask."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    found = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([0] * len(boxes) if labels is None else labels),
        scores=torch.tensor([0.5] * len(boxes) if scores is None else scores),
    )
    if with_masks:
        found.masks = masks
    return SimpleNamespace(pred_instances=found)


def predictions(size):
    """One of each task on a grey image."""
    height, width = size
    image = np.full((*size, 3), 90, np.uint8)
    boxes = [(0, 0, width, height), (width // 2, height // 2, width, height), (0, 0, 0, 0)]
    labels = torch.arange(height * width).reshape(1, height, width) % len(NAMES)
    samples = {
        'detection': instances(boxes, size=size, labels=[0, 3, 99]),
        'segmentation': SimpleNamespace(pred_sem_seg=PixelData(data=labels)),
        'classification': SimpleNamespace(pred_score=torch.rand(len(NAMES))),
    }
    for task, sample in samples.items():
        yield Prediction('', image, sample, task, CLASSES)


def test_truth_stands_beside_the_prediction():
    from mmdet.structures.mask import BitmapMasks

    size = 60, 80
    truth, guess = [(10, 10, 30, 30)], [(50, 30, 70, 50)]
    image = np.full((*size, 3), 90, np.uint8)
    found, given = (instances(boxes, size=size).pred_instances for boxes in (guess, truth))
    given.pop('scores')
    given.masks = BitmapMasks(given.masks.numpy().astype(np.uint8), *size)
    labels = torch.zeros(1, *size, dtype=torch.long)
    ignored = labels.clone()
    ignored[:, :30] = 255
    samples = {
        'detection': BaseDataElement(pred_instances=found, gt_instances=given),
        'segmentation': BaseDataElement(
            pred_sem_seg=PixelData(data=labels), gt_sem_seg=PixelData(data=ignored)
        ),
        'classification': BaseDataElement(
            pred_score=torch.tensor([0.9, 0.1]), gt_label=torch.tensor([1])
        ),
    }
    for task, sample in samples.items():
        picture = draw_beside_truth(image, sample, task=task, classes=CLASSES)
        height, width = (8 * side for side in size)
        assert picture.shape == (height, 2 * width, 3)
        left, right = np.split(picture.astype(int), 2, axis=1)
        at = {'detection': (20, 20), 'segmentation': (5, 40), 'classification': (50, 70)}[task]
        pixels = [side[8 * at[0], 8 * at[1]].tolist() for side in (left, right)]
        expected = {'detection': [False, True], 'segmentation': [True, False]}
        assert [p == [90] * 3 for p in pixels] == expected.get(task, [True, True])
        assert (left != right).any()
    assert draw_beside_truth(image, BaseDataElement(), task='detection', classes=CLASSES) is None


@pytest.mark.parametrize('size', [(1, 1), (1, 3000), (3000, 1), (7, 9), (128, 90), (500, 700)])
def test_images_of_any_size(size):
    scale = picture_scale(size)
    assert size == (500, 700) or min(scale * side for side in size) >= 480 or max(size) == 3000
    for prediction in predictions(size):
        picture = draw_prediction(prediction, score_threshold=0.0)
        assert picture.shape == (*(round(scale * side) for side in size), 3)
        assert picture.dtype == np.uint8
        assert (picture != 90).any(), prediction.task
    assert (prediction.image == 90).all(), 'the image of a prediction is not drawn on'


@pytest.mark.parametrize('size', [(2, 70_000), (70_000, 1)])
def test_picture_longer_than_jpeg_takes(size):
    picture = np.full((*size, 3), 90, np.uint8)
    content = np.frombuffer(encode_jpeg(picture), np.uint8)
    assert sorted(cv2.imdecode(content, cv2.IMREAD_COLOR).shape)[1:] == [3, 65_500]


def test_threshold():
    sample = instances([(10, 10, 500, 400)], size=(600, 600))
    prediction = Prediction('', np.zeros((600, 600, 3), np.uint8), sample, 'detection', CLASSES)
    assert draw_prediction(prediction, score_threshold=0.5).any()
    assert not draw_prediction(prediction, score_threshold=0.51).any()
    sample.pred_instances = sample.pred_instances[:0]
    assert not draw_prediction(prediction, score_threshold=0.0).any()


@pytest.mark.parametrize('scale', [1, 2])
def test_the_higher_score_covers_the_lower(scale):
    """Every pixel is blended once, with the colour of the class of the mask on top."""
    size = 600 // scale, 800 // scale
    boxes = np.array([(300, 200, 700, 500), (60, 60, 500, 400)]) // scale
    sample = instances(boxes.tolist(), size=size, labels=[1, 2], scores=[0.9, 0.4])
    prediction = Prediction('', np.zeros((*size, 3), np.uint8), sample, 'detection', CLASSES)
    picture = draw_prediction(prediction)
    zoom = picture_scale(size) / scale
    for (row, column), label in {(350, 400): 1, (450, 650): 1, (150, 150): 2}.items():
        expected = OPACITY * np.array(CLASSES.palette[label][::-1])
        found = picture[round(zoom * row), round(zoom * column)]
        assert found == pytest.approx(expected, abs=1.01), (row, column)
    assert not picture[round(zoom * 560)].any(), 'below both'


def test_label_map():
    labels = torch.zeros(1, 600, 800, dtype=torch.int64)
    labels[:, :, 300:] = 1
    sample = SimpleNamespace(pred_sem_seg=PixelData(data=labels))
    image = np.full((600, 800, 3), 100, np.uint8)
    picture = draw_prediction(Prediction('', image, sample, 'segmentation', CLASSES))
    for column, label in ((5, 0), (795, 1)):
        expected = 0.45 * 100 + 0.55 * np.array(CLASSES.palette[label][::-1])
        assert picture[590, column] == pytest.approx(expected, abs=1.01)
    # Names stand in the middle of their segments, on a field of the full colour.
    for label, middle in ((0, 150), (1, 550)):
        around = picture[280:320, middle - 40 : middle + 40].reshape(-1, 3)
        assert (around == CLASSES.palette[label][::-1]).all(1).any()


def test_labels_are_inside_and_apart():
    rng = np.random.default_rng(0)
    text = TextLabels(np.zeros((480, 640, 3), np.uint8))
    fields = []
    for number in range(200):
        places = [tuple(rng.uniform(-100, 700, 2)) for _ in range(2)]
        field = text.write(f'{NAMES[number % len(NAMES)]} 0.50', places, colour=(250, 200, 0))
        if field is not None:
            fields.append(np.array(field))
    assert len(fields) > 20
    for number, field in enumerate(fields):
        assert (field[:2] >= 0).all() and field[2] <= 641 and field[3] <= 481
        for other in fields[:number]:
            assert (field[2:] <= other[:2]).any() or (other[2:] <= field[:2]).any()
    picture = text.picture()
    assert (picture == (0, 200, 250)).all(2).sum() > 1000 and (picture[..., 2] < 20).any()


def test_long_names_leave_room_for_the_score():
    drawn = []
    for ending in (' 0.11', ' 0.99'):
        text = TextLabels(np.zeros((480, 480, 3), np.uint8))
        text.write('x' * 200, [(0, 0)], colour=(250, 200, 0), ending=ending)
        drawn.append(text.picture())
    assert (drawn[0] != drawn[1]).any() and (drawn[0][:, :300] == drawn[1][:, :300]).all()


def test_a_hundred_instances_take_no_time():
    """A fifth of a second where the machine is idle; mmdet's visualizer takes 15 s."""
    rng, size = np.random.default_rng(0), (682, 1024)
    corners = rng.integers(0, (700, 400), (100, 2))
    boxes = np.hstack([corners, corners + rng.integers(30, 280, (100, 2))])
    sample = instances(boxes.tolist(), size=size, labels=(np.arange(100) % 6).tolist())
    image = cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), size[::-1])
    prediction = Prediction('', image, sample, 'detection', CLASSES)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        draw_prediction(prediction)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.6


def test_colours():
    colours = class_colours(150)
    assert len(set(colours)) == 150 and colours[7] == class_colour(7)
    given = [[1, 2, 3], [4, 5, 6]]
    assert class_colours(3, palette=given) == [(1, 2, 3), (4, 5, 6), class_colour(2)]
    assert class_colours(1, palette=given) == [(1, 2, 3)]
    assert class_colours(2, palette='random') == class_colours(2)
    for colour in [*colours, (0, 0, 0), (255, 255, 255), (119, 119, 119)]:
        light, dark = sorted((luminance(colour), luminance(text_colour(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5, 'WCAG AA'


def luminance(colour):
    channels = np.array(colour) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
