"""Several views of an image: which there are, and what is made of their predictions."""

import copy
import gc
import json
import weakref
from itertools import product

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData, PixelData
from scipy.optimize import linear_sum_assignment
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tta_models import (
    LEAVES,
    SHRUNK,
    random_image,
    random_model,
    scope_of,
    shrunk_config,
    symmetrise,
    two_stage_config,
    view_configs,
    views_of,
)

import swinv2_mm.models  # noqa: F401
from swinv2_mm.engine.prediction_file import PredictionFile, read_predictions
from swinv2_mm.errors import UserError
from swinv2_mm.tta import class_scores, detections, label_maps, two_stage
from swinv2_mm.tta.model import MultiViewModel
from swinv2_mm.tta.views import MirrorImage, split_test_pipeline

SCOPES = ('mmdet', 'mmseg', 'mmpretrain')
ONE_PLAIN_VIEW = ['tta.scales=[1.0]', 'tta.flips=[none]']


PIPELINE = (
    dict(type='LoadCheckedImage'),
    dict(type='Resize', scale=(400, 200), keep_ratio=True),
    dict(type='Pad', size_divisor=32),
    dict(type='LoadAnnotations'),
    dict(type='PackDetInputs'),
)


class TestViews:
    def split(self, pipeline=None, **tta):
        tta = {'scales': (1.0,), 'flips': ('none',), **tta}
        dataset = dict(type='CocoDataset', pipeline=copy.deepcopy(list(pipeline or PIPELINE)))
        cfg = Config(dict(test_dataloader=dict(dataset=dataset), tta=tta))
        return cfg, [view['transforms'] for view in split_test_pipeline(cfg)]

    def test_plain_view_is_the_test_pipeline(self):
        cfg, (view,) = self.split()
        kept = cfg.test_dataloader.dataset.pipeline
        assert [t['type'] for t in kept] == ['LoadCheckedImage', 'KeepLoaded']
        assert view == list(PIPELINE[1:])

    def test_order_is_scales_then_flips(self):
        _, views = self.split(scales=(1, 2), flips=('none', 'horizontal'))
        assert [v[0]['scale'] for v in views] == [(400, 200)] * 2 + [(800, 400)] * 2
        assert ['MirrorImage' in [t['type'] for t in v] for v in views] == [False, True] * 2

    def test_mirrors_before_padding_and_annotations(self):
        _, (view,) = self.split(flips='horizontal')
        types = [t['type'] for t in view]
        assert types == ['Resize', 'MirrorImage', 'Pad', 'LoadAnnotations', 'PackDetInputs']

    @pytest.mark.parametrize('size', [(5, 1), (1, 5), (1, 1)])
    def test_image_of_one_line_is_mirrored(self, size):
        for direction in ('horizontal', 'vertical'):
            image = MirrorImage(direction)({'img': np.zeros((*size, 3), np.uint8)})['img']
            assert torch.from_numpy(image).shape == (*size, 3)

    @pytest.mark.parametrize(
        ('sizing', 'scale', 'expected'),
        [
            (dict(type='Resize', scale=(400, 200)), 0.75, dict(scale=(300, 150))),
            (dict(type='Resize', scale=(400, 200)), (64, 32), dict(scale=(64, 32))),
            (dict(type='mmdet.Resize', scale_factor=0.5), 3, dict(scale_factor=1.5)),
            (dict(type='ResizeEdge', scale=146), 1.25, dict(scale=182)),
            (dict(type='CenterCrop', crop_size=128), 1.5, dict(crop_size=192)),
        ],
    )
    def test_scale(self, sizing, scale, expected):
        pipeline = [dict(type='LoadCheckedImage'), sizing, dict(type='PackInputs')]
        _, (view,) = self.split(pipeline, scales=[scale])
        assert view == [{**sizing, **expected}, pipeline[2]]

    @pytest.mark.parametrize('scale', [0.5, (64, 32)])
    def test_pipeline_without_resize(self, scale):
        pipeline = [PIPELINE[0], *PIPELINE[3:]]
        _, (view,) = self.split(pipeline, scales=[scale])
        assert view[0]['type'] == 'Resize' and view[1:] == pipeline[1:]

    @pytest.mark.parametrize(
        ('tta', 'words'),
        [
            (dict(scales=(1333, 800)), '(1333, 800)'),
            (dict(scales=(0,)), 'factor'),
            (dict(scales=(True,)), 'factor'),
            (dict(scales=('big',)), 'factor'),
            (dict(scales=()), 'is empty'),
            (dict(scales=(1, 1.0, 1)), 'twice'),
            (dict(flips=('left',)), "'left' is none of"),
            (dict(flips=()), 'is empty'),
            (dict(sizes=(1,)), 'sizes'),
        ],
    )
    def test_mistakes(self, tta, words):
        with pytest.raises(UserError) as error:
            self.split(**tta)
        assert words in str(error.value)

    def test_pixels_for_a_pipeline_that_crops(self):
        pipeline = [dict(type='ResizeEdge', scale=146), dict(type='CenterCrop', crop_size=128)]
        with pytest.raises(UserError, match='give factors'):
            self.split(pipeline, scales=[(64, 32)])

    def test_different_pipelines(self):
        cfg = Config(
            dict(
                test_dataloader=dict(
                    dataset=dict(
                        type='ConcatDataset',
                        datasets=[dict(pipeline=list(PIPELINE)), dict(pipeline=[])],
                    )
                ),
                tta=dict(scales=1, flips='none'),
            )
        )
        with pytest.raises(UserError, match='pipeline'):
            split_test_pipeline(cfg)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Random weights that fit the shrunk leaves."""
    folder = tmp_path_factory.mktemp('weights')
    for scope in SCOPES:
        model = random_model(shrunk_config(scope))
        torch.save({'state_dict': model.state_dict()}, folder / f'{scope}.pth')
    return folder


@pytest.fixture
def run(checkpoints, tool, use_data, tmp_path):
    """Test a shrunk leaf; returns status, errors, metrics and predictions."""

    def test(scope, *arguments, options=(), outputs=('json', 'npz'), images=2):
        paths = [tmp_path / f'out.{suffix}' for suffix in outputs]
        status, errors = tool(
            'test', LEAVES[scope], checkpoints / f'{scope}.pth', '--work-dir', tmp_path / 'work',
            *[word for path in paths for word in ('--out', path)], *arguments,
            '--cfg-options', *SHRUNK[scope], f'+test_dataloader.dataset.indices={images}', *options,
        )  # fmt: skip
        if status:
            return status, errors, None, None
        metrics = None
        if 'json' in outputs:
            metrics = json.loads((tmp_path / 'out.json').read_text())['metrics']
        predictions = None
        if 'npz' in outputs:
            with np.load(tmp_path / 'out.npz', allow_pickle=False) as file:
                predictions = dict(file)
        return status, errors, metrics, predictions

    return test


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        assert first[name].tobytes() == second[name].tobytes(), name


SOFT_NMS = ['+model.test_cfg.rcnn.nms.type=soft_nms', 'model.test_cfg.rcnn.score_thr=0.001']


@pytest.mark.parametrize(
    ('scope', 'options'), [('mmdet', SOFT_NMS), ('mmseg', []), ('mmpretrain', [])]
)
def test_one_plain_view_is_plain_testing(scope, options, run):
    status, errors, plain_metrics, plain = run(scope, options=options)
    assert status == 0, errors
    status, errors, metrics, predictions = run(scope, '--tta', options=[*options, *ONE_PLAIN_VIEW])
    assert status == 0, errors
    assert metrics == plain_metrics
    assert_same_bits(predictions, plain)
    # And the predictions are not empty or constant, or they would prove nothing.
    varied = {'mmdet': 'scores', 'mmseg': 'label_map_0', 'mmpretrain': 'class_scores'}[scope]
    assert len(np.unique(predictions[varied])) > 1


@pytest.mark.parametrize('scope', SCOPES)
def test_several_views_with_pictures_and_another_window(scope, run, tmp_path):
    arguments = ['--tta', '--window-size', '12,12,12,6', '--show-dir', tmp_path / 'pictures']
    status, errors, metrics, predictions = run(scope, *arguments, images=1)
    assert status == 0, errors
    _, _, plain_metrics, plain = run(scope, images=1)
    assert metrics.keys() == plain_metrics.keys()
    assert predictions.keys() == plain.keys()
    assert any(
        (predictions[n].shape != plain[n].shape or (predictions[n] != plain[n]).any())
        for n in plain
    )
    assert len(list((tmp_path / 'pictures').rglob('*.[jp][pn]g'))) == len(plain['images'])


def close_detections(first, second):
    """Compare two results whose order may differ where scores are equal up to rounding."""
    both = (first, second)
    assert len(first) == len(second) > 3
    assert torch.allclose(first.scores.sort()[0], second.scores.sort()[0], atol=1e-3)
    distances = torch.cdist(
        *(torch.cat([x.bboxes, x.labels[:, None] * 1e3, x.scores[:, None] * 10], 1) for x in both),
        compute_mode='donot_use_mm_for_euclid_dist',  # the other one is not exact
    )
    rows, match = linear_sum_assignment(distances)
    assert distances[rows, match].max() < 0.1
    differing = (first.masks != second.masks[match]).flatten(1).sum(1)
    # Pixels on the edge of a mask may go either way.
    assert (differing <= 1 + 0.02 * first.masks.flatten(1).sum(1)).all()


class TestTwoStage:
    """The passes of ours over a single view against mmdet's own test of it."""

    @pytest.mark.parametrize(
        ('kind', 'scale', 'flip', 'nms'),
        [
            ('mask-rcnn', 1.5, 'none', 'soft_nms'),
            ('cascade', 0.75, 'horizontal', 'soft_nms'),
            ('htc', 1.0, 'diagonal', 'nms'),
            *(
                pytest.param(*each, marks=pytest.mark.slow)
                for each in product(
                    ['mask-rcnn', 'cascade', 'htc'],
                    [1.5, 0.75],
                    ['none', 'horizontal', 'vertical', 'diagonal'],
                    ['nms', 'soft_nms'],
                )
            ),
        ],
    )
    def test_one_view(self, kind, scale, flip, nms):
        cfg = two_stage_config(kind)
        cfg.test_dataloader.dataset.pipeline[1].scale = (96, 96)
        cfg.model.test_cfg.rpn.max_per_img = 50
        cfg.model.test_cfg.rcnn.nms.type = nms
        cfg.model.test_cfg.rcnn.score_thr = 0.2
        cfg.model.test_cfg.rcnn.max_per_img = -1
        model = random_model(cfg)
        views = views_of(cfg, [scale], [flip])
        images = [random_image(128, 96), random_image(112, 128, seed=1)]
        assert two_stage.is_supported(model)
        with torch.no_grad():
            ours = two_stage.merge(model, views, images)
            theirs = model.test_step(views[0].batch(images))
        for own, their in zip(ours, theirs, strict=True):
            detections.mirror_back(their, flip)
            assert own.pred_instances.masks.shape[1:] == their.ori_shape
            close_detections(own.pred_instances, their.pred_instances)

    def test_nothing_found(self):
        cfg = two_stage_config('cascade')
        cfg.model.test_cfg.rcnn.score_thr = 2.0
        model = random_model(cfg)
        with torch.no_grad():
            (sample,) = two_stage.merge(
                model, views_of(cfg, [1, 0.5], ['none']), [random_image(64, 96)]
            )
        assert sample.pred_instances.masks.shape == (0, 64, 96)
        assert len(sample.pred_instances) == 0

    def test_boxes_only(self):
        cfg = two_stage_config('cascade')
        cfg.model.roi_head.mask_head = cfg.model.roi_head.mask_roi_extractor = None
        model = random_model(cfg)
        with torch.no_grad():
            (sample,) = two_stage.merge(
                model, views_of(cfg, [1, 0.5], ['none']), [random_image(64, 96)]
            )
        assert len(sample.pred_instances) and 'masks' not in sample.pred_instances

    def test_a_head_with_a_test_of_its_own_is_not_supported(self):
        cfg = two_stage_config('cascade')
        model = random_model(cfg)

        class OwnTest(type(model.roi_head)):
            def predict_mask(self, *args, **kwargs):
                return super().predict_mask(*args, **kwargs)

        model.roi_head.__class__ = OwnTest
        assert not two_stage.is_supported(model)


class TestSymmetry:
    """A model that commutes with mirroring: mirrored views add nothing, if all is mapped back."""

    @pytest.fixture(scope='class')
    def detector(self):
        cfg = two_stage_config('cascade')
        cfg.test_dataloader.dataset.pipeline[1].scale = (64, 64)
        # Anchors lie on the left edge of their cells, and the coarsest level is every second
        # column of the one before: neither is symmetric.
        cfg.model.rpn_head.anchor_generator.center_offset = 0.5
        cfg.model.rpn_head.anchor_generator.strides = [4, 8, 16, 32]
        cfg.model.neck.num_outs = 4
        # All candidates, so that rounding does not decide which are among the best.
        cfg.model.test_cfg.rpn.update(nms_pre=5000, max_per_img=5000)
        cfg.model.test_cfg.rpn.nms.iou_threshold = 0.5
        cfg.model.test_cfg.rcnn.update(max_per_img=-1, score_thr=0.5)
        model = symmetrise(random_model(cfg, seed=3))
        for name, parameter in model.named_parameters():
            if name.endswith(('rpn_reg.weight', 'fc_reg.weight')):
                parameter.data *= 0.1  # boxes near their anchors, of which none is empty
        return cfg, model

    @pytest.mark.parametrize('flips', [['horizontal'], ['none', 'horizontal']], ids=str)
    def test_detector(self, detector, flips):
        cfg, model = detector
        plain, tested = self.results_of_both(cfg, model, random_image(64, 64), flips)
        close_detections(plain.pred_instances, tested.pred_instances)

    def test_detector_of_which_nothing_is_mapped_back(self, detector):
        """The comparison notices."""
        cfg, model = detector
        with torch.no_grad():
            (plain,) = model.test_step(
                views_of(cfg, [1], ['none'])[0].batch([random_image(64, 64)])
            )
            (other,) = model.test_step(
                views_of(cfg, [1], ['horizontal'])[0].batch([random_image(64, 64)])
            )
        with pytest.raises(AssertionError):
            close_detections(plain.pred_instances, other.pred_instances)

    @pytest.mark.parametrize('flips', [['horizontal'], ['none', 'horizontal']], ids=str)
    def test_segmentor(self, flips):
        cfg = shrunk_config('mmseg')
        model = symmetrise(random_model(cfg))
        plain, tested = self.results_of_both(cfg, model, random_image(128, 64), flips)
        first, second = plain.seg_logits.data, tested.seg_logits.data
        if len(flips) > 1:
            first = first.softmax(dim=0)
        assert torch.allclose(first, second, atol=1e-4)
        assert (plain.pred_sem_seg.data == tested.pred_sem_seg.data).float().mean() > 0.999
        turned = plain.pred_sem_seg.data.flip(-1)
        assert (turned == tested.pred_sem_seg.data).float().mean() < 0.9

    @pytest.mark.parametrize('flips', [['horizontal'], ['none', 'horizontal']], ids=str)
    def test_classifier(self, flips):
        cfg = shrunk_config('mmpretrain')
        model = symmetrise(random_model(cfg))
        plain, tested = self.results_of_both(cfg, model, random_image(64, 64), flips)
        assert torch.allclose(plain.pred_score, tested.pred_score, atol=1e-5)

    @staticmethod
    def results_of_both(cfg, model, image, flips):
        with scope_of(cfg):
            views = view_configs(cfg, [1], flips)
            whole = MultiViewModel(model, scope=cfg.default_scope, views=views)
        with torch.no_grad():
            (plain,) = model.test_step(views_of(cfg, [1], ['none'])[0].batch([image]))
            (tested,) = whole.test_step({'loaded': [image]})
        return plain, tested


def test_class_scores_are_means_and_the_label_follows():
    cfg = shrunk_config('mmpretrain')
    model = random_model(cfg)
    views = views_of(cfg, [1, 2, 0.5], ['none', 'horizontal'])
    images = [random_image(64, 64, seed=seed) for seed in range(24)]
    with torch.no_grad():
        alone = [model.test_step(view.batch(images)) for view in views]
        merged = class_scores.merge(model, views, images, nms=None)
    labels = []
    for i, sample in enumerate(merged):
        mean = torch.stack([samples[i].pred_score for samples in alone]).mean(dim=0)
        assert torch.allclose(sample.pred_score, mean)
        assert sample.pred_label.tolist() == [int(sample.pred_score.argmax())]
        labels.append(alone[0][i].pred_label.tolist() == sample.pred_label.tolist())
    assert not all(labels), 'the first view never disagrees: the test shows nothing'


ONE_MAP = [
    'model.decode_head.num_classes=2',
    '+model.decode_head.out_channels=1',
    '+model.decode_head.threshold=0.51',
    'model.decode_head.loss_decode=dict(type=CrossEntropyLoss,use_sigmoid=True)',
]


def test_one_map_is_thresholded_where_it_says_so():
    """The foreground of a single map is what exceeds the head's threshold, in several views too."""
    cfg = shrunk_config('mmseg', *ONE_MAP)
    model = random_model(cfg)
    views = views_of(cfg, [1, 0.5], ['none', 'horizontal'])
    image = random_image(64, 96)
    with torch.no_grad():
        (merged,) = label_maps.merge(model, views, [image], nms=None)
        maps = []
        for view in views:
            (probabilities,) = (s.seg_logits.data for s in model.test_step(view.batch([image])))
            maps.append(probabilities.flip(-1) if view.mirroring == 'horizontal' else probabilities)
    mean = torch.stack(maps).mean(dim=0)
    assert mean.shape == (1, 64, 96) and 0 <= mean.min() < 0.51 < mean.max() <= 1
    torch.testing.assert_close(merged.seg_logits.data, mean)
    assert torch.equal(merged.pred_sem_seg.data.bool(), mean > 0.51)


def test_probabilities_of_label_maps_are_means():
    cfg = shrunk_config('mmseg')
    model = random_model(cfg)
    views = views_of(cfg, [1, 0.5], ['none', 'vertical'])
    images = [random_image(64, 96), random_image(64, 96, seed=1)]
    with torch.no_grad():
        merged = label_maps.merge(model, views, images, nms=None)
        for i, sample in enumerate(merged):
            maps = []
            for view in views:
                logits = model.test_step(view.batch(images))[i].seg_logits.data
                maps.append((logits.flip(1) if view.mirroring == 'vertical' else logits).softmax(0))
            mean = torch.stack(maps).mean(dim=0)
            assert torch.allclose(sample.seg_logits.data, mean, atol=1e-6)
            assert sample.pred_sem_seg.data.shape == (1, 64, 96)
            assert torch.equal(sample.pred_sem_seg.data, sample.seg_logits.data.argmax(0, True))


class RectangleFinder(torch.nn.Module):
    """A detector without weights: finds squares of known colours, whatever the view.

    The class of a square is its colour; scores grow with the size of the view, as if a detector
    saw more in larger ones.
    """

    test_cfg = ConfigDict(max_per_img=10)

    def test_step(self, batch):
        samples = batch['data_samples']
        for image, sample in zip(batch['inputs'], samples, strict=True):
            found = []
            for label, value in enumerate((100, 200)):
                mask = (image[0].float() - value).abs() < 20
                if mask.any():
                    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
                    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                    found.append((torch.tensor(box).float(), label, mask))
            height, width = sample.ori_shape
            scale = torch.tensor(sample.scale_factor).repeat(2)
            sample.pred_instances = InstanceData(
                bboxes=torch.stack([box / scale for box, _, _ in found]),
                scores=torch.full((len(found),), image.shape[2] / 1000),
                labels=torch.tensor([label for _, label, _ in found]),
                masks=torch.stack(
                    [
                        torch.nn.functional.interpolate(
                            mask[None, None].float(), (height, width), mode='nearest'
                        )[0, 0]
                        > 0.5
                        for _, _, mask in found
                    ]
                ),
            )
        return samples


def test_finished_detections_are_thinned_out_and_keep_their_masks():
    cfg = shrunk_config('mmdet')
    cfg.test_dataloader.dataset.pipeline[1].interpolation = 'nearest'
    image = random_image(64, 96)
    pixels = image.results['img']
    pixels[:] = 0
    pixels[8:24, 16:48] = 100
    pixels[32:56, 8:24] = 200
    views = views_of(cfg, [(96, 64), (192, 128)], ['none', 'horizontal', 'vertical', 'diagonal'])
    nms = dict(type='nms', iou_threshold=0.7)
    (sample,) = detections.merge(RectangleFinder(), views, [image], nms=nms)
    found = sample.pred_instances
    order = found.labels.argsort()
    assert torch.allclose(
        found.bboxes[order], torch.tensor([[16.0, 8, 48, 24], [8, 32, 24, 56]]), atol=1e-4
    )
    assert torch.allclose(found.scores, torch.tensor(0.192))  # of the largest view
    for label, mask in zip(found.labels, found.masks, strict=True):
        assert np.array_equal(mask.numpy(), pixels[..., 0] == (100, 200)[label])


def test_panoptic_predictions_are_refused():
    class Panoptic(RectangleFinder):
        def test_step(self, batch):
            samples = batch['data_samples']
            for sample in samples:
                sample.pred_panoptic_seg = PixelData()
            return samples

    views = views_of(shrunk_config('mmdet'), [1], ['none', 'horizontal'])
    with pytest.raises(UserError, match='cannot be merged'):
        detections.merge(Panoptic(), views, [random_image(64, 96)], nms=None)


class PeakOfTensors(TorchDispatchMode):
    """The largest number of bytes that tensors made inside hold at one time.

    Views of the weights are results of operations, too, but take no memory.
    """

    def __init__(self, weights=()):
        super().__init__()
        self.now = self.peak = 0
        self._seen = weakref.WeakSet(w.untyped_storage() for w in weights)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage not in self._seen:
                    self._seen.add(storage)
                    size = storage.nbytes()
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, size)
        return result

    def _free(self, size):
        self.now -= size


def test_the_measure_of_memory():
    weight = torch.ones(5000)
    with PeakOfTensors([weight]) as memory:
        weight.view(10, 500).t()
        for _ in range(3):
            first = torch.ones(1000)
            second = first.view(10, 100) + 1
            del first, second
        kept = [torch.ones(250) for _ in range(4)]
    assert memory.peak == 8000 and memory.now == 4000 and len(kept) == 4


@pytest.mark.parametrize('scope', SCOPES)
def test_memory_does_not_grow_with_the_number_of_scales(scope):
    cfg = shrunk_config(scope)
    merge = {'mmdet': detections, 'mmseg': label_maps, 'mmpretrain': class_scores}[scope].merge
    images = [random_image(128, 128)]
    six = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    # The backbone keeps masks and coordinates of the map sizes it meets, up to a fixed number of
    # bytes: for every scale here, as for every size of image in a plain test.
    with torch.no_grad():
        merge(random_model(cfg), views_of(cfg, six, ['none']), images, nms=None)
    peaks = []
    for scales in ([1.0], [0.5, 1.0], six):
        model = random_model(cfg)  # with no bias table kept from before
        views = views_of(cfg, scales, ['none'])
        gc.collect()
        weights = [*model.parameters(), *model.buffers()]
        with torch.no_grad(), PeakOfTensors(weights) as memory:
            merge(model, views, images, nms=None)
        peaks.append(memory.peak)
    print(f'{scope}: peak in bytes with 1, 2, 6 scales: {peaks}')
    # The values that bias tables were computed from are kept with them, per window size.
    assert peaks[2] <= 1.1 * peaks[1]
    # What several views need beside one: the running sum of probabilities, be they many or few.
    running_sum = {'mmdet': 100 * 10 * 28 * 28 * 4, 'mmseg': 11 * 128 * 128 * 4, 'mmpretrain': 0}
    assert peaks[2] <= 1.1 * peaks[0] + running_sum[scope]


class TestOutputs:
    def test_predictions_can_be_read_again(self, run, tmp_path):
        from pycocotools import mask as rle

        *_, arrays = run('mmdet', outputs=['npz'])
        records = list(read_predictions(tmp_path / 'out.npz'))
        assert len(records) == len(arrays['images']) == 2
        assert arrays['classes'][0] == 'zero'
        for record in records:
            assert record['image'].endswith('.jpg') and record['size'] == (128, 128)
            assert len(record['boxes']) == len(record['masks']) == len(record['scores']) > 0
            assert rle.decode(record['masks'][0]).shape == (128, 128)
        assert sum(len(r['boxes']) for r in records) == len(arrays['labels'])

    def test_label_maps_and_classes(self, run, tmp_path):
        run('mmseg', outputs=['npz'])
        for record in read_predictions(tmp_path / 'out.npz'):
            assert record['label_map'].shape == (128, 128) and record['label_map'].max() < 11
        run('mmpretrain', outputs=['npz'])
        for record in read_predictions(tmp_path / 'out.npz'):
            assert record['class_scores'].sum() == pytest.approx(1, abs=1e-5)
            assert record['class_label'] == record['class_scores'].argmax()

    @pytest.mark.parametrize('largest', [255, 256, 2**16 - 1, 2**16, 132 + 1000 * 99])
    def test_maps_of_large_numbers(self, largest, tmp_path):
        """Panoptic ids are ``class + 1000 * instance``."""
        ids = torch.tensor([[[0, 1, largest - 1, largest]]])
        metric = PredictionFile(str(tmp_path / 'out.npz'))
        metric.process({}, [{'pred_panoptic_seg': {'sem_seg': ids}}])
        metric.evaluate(1)
        (record,) = read_predictions(tmp_path / 'out.npz')
        assert record['panoptic_map'].tolist() == ids[0].tolist()

    def test_another_file(self, tmp_path):
        np.savez(tmp_path / 'other.npz', a=np.zeros(1))
        with pytest.raises(ValueError, match='predictions'):
            list(read_predictions(tmp_path / 'other.npz'))

    @pytest.mark.parametrize(
        ('arguments', 'words'),
        [
            (['--out', 'scores.pkl'], '.npz'),
            (['--format-only', '--out', 'scores.json'], 'metrics'),
            (['--window-size', '8,8'], 'window_size'),
            (['--tta', '--cfg-options', 'tta.scale=1'], "did you mean 'tta.scales'"),
            (['--tta', '--cfg-options', 'tta.scales=(1333,800)'], '(1333, 800)'),
        ],
    )
    def test_mistakes(self, arguments, words, checkpoints, refused, use_data, tmp_path):
        assert words in refused(
            'test', LEAVES['mmpretrain'], checkpoints / 'mmpretrain.pth', '--work-dir', tmp_path,
            *arguments,
        )  # fmt: skip


class TestFormatOnly:
    def test_boxes_and_masks(self, run, use_data, tmp_path):
        """With the images' names and sizes, and nothing else."""
        path = use_data / 'digits' / 'annotations' / 'val.json'
        known = json.loads(path.read_text())
        infos = {'images': known['images'], 'categories': known['categories']}
        (tmp_path / 'image_info.json').write_text(json.dumps(infos))
        options = [f'test_dataloader.dataset.ann_file={tmp_path / "image_info.json"}']
        status, errors, _, predictions = run(
            'mmdet', '--format-only', options=options, outputs=['npz']
        )
        assert status == 0, errors
        folder = tmp_path / 'work' / 'submission'
        assert {p.name for p in folder.iterdir()} == {
            'predictions.bbox.json', 'predictions.segm.json',
        }  # fmt: skip
        boxes = json.loads((folder / 'predictions.bbox.json').read_text())
        assert len(boxes) == len(predictions['boxes']) > 0
        assert {b['image_id'] for b in boxes} <= {i['id'] for i in infos['images']}
        ids = [category['id'] for category in infos['categories']]
        assert sorted(b['category_id'] for b in boxes) == sorted(
            ids[label] for label in predictions['labels']
        )
        masks = json.loads((folder / 'predictions.segm.json').read_text())
        assert masks[0]['segmentation']['size'] == [128, 128]

    def test_label_maps(self, run, checkpoints, use_data, tmp_path):
        from PIL import Image

        options = ['test_dataloader.dataset.data_prefix.seg_map_path=nowhere']
        status, errors, _, predictions = run(
            'mmseg', '--format-only', '--tta', options=options, outputs=['npz']
        )
        assert status == 0, errors
        files = sorted((tmp_path / 'work' / 'submission').glob('*.png'))
        assert len(files) == len(predictions['images'])
        assert np.array_equal(np.asarray(Image.open(files[0])), predictions['label_map_0'])

    def test_metric_without_files(self, run):
        status, errors, _, _ = run('mmpretrain', '--format-only', outputs=['npz'])
        assert status == 1 and 'Accuracy' in errors


def test_every_task_has_a_fragment():
    fragments = {p.stem for p in (ROOT / 'configs/_base_/tta').glob('*.py')}
    assert fragments == {'classification', 'detection', 'segmentation'}
