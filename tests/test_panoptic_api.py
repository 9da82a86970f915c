"""The stand-in for panopticapi: ids as colours, and panoptic quality counted by hand."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import swinv2_mm.models  # noqa: F401
from swinv2_mm.datasets.panoptic_api import OFFSET, PQStat, id2rgb, rgb2id

CATEGORIES = {3: {'isthing': 1}, 7: {'isthing': 1}, 9: {'isthing': 0}, 11: {'isthing': 0}}


def test_ids_survive_the_way_through_colours():
    ids = np.array([[0, 1, 255, 256], [65535, 65536, 5_000_123, OFFSET - 1]], np.int32)
    colours = id2rgb(ids)
    assert colours.shape == (2, 4, 3) and colours.dtype == np.uint8
    np.testing.assert_array_equal(rgb2id(colours), ids)
    assert colours[1, 2].tolist() == [5_000_123 % 256, 5_000_123 // 256 % 256, 5_000_123 // 65536]
    assert id2rgb(258) == [2, 1, 0] and rgb2id([2, 1, 0]) == 258


def test_quality_by_hand():
    stat, more = PQStat(), PQStat()
    stat[3].tp, stat[3].iou, stat[3].fp = 1, 0.8, 1
    more[3].tp, more[3].iou, more[3].fn = 1, 0.6, 2
    more[9].fp = 4
    stat += more
    # Class 3: 1.4 / (2 + 0.5 + 1) over its pairs; class 9 found nothing; 7 and 11 do not occur.
    both, per_class = stat.pq_average(CATEGORIES, isthing=None)
    assert per_class[3] == pytest.approx({'pq': 0.4, 'sq': 0.7, 'rq': 2 / 3.5})
    assert both == pytest.approx({'pq': 0.2, 'sq': 0.35, 'rq': 1 / 3.5, 'n': 2})
    things, _ = stat.pq_average(CATEGORIES, isthing=True)
    stuff, classes = stat.pq_average(CATEGORIES, isthing=False)
    assert things['pq'] == pytest.approx(0.4) and stuff['pq'] == 0 and set(classes) == {9, 11}
    assert pickle.loads(pickle.dumps(stat))[3].iou == pytest.approx(1.4)  # workers send it


def test_mmdet_uses_it_and_the_real_one_wins(tmp_path):
    (tmp_path / 'panopticapi').mkdir()
    (tmp_path / 'panopticapi' / '__init__.py').write_text('real = True')
    code = (
        'import swinv2_mm.datasets.panoptic_api as ours; ours.ensure_panopticapi()\n'
        'import panopticapi; print(getattr(panopticapi, "real", False))'
    )
    for path, expected in ((tmp_path, 'True'), (tmp_path / 'nowhere', 'False')):
        code_with_path = f'import sys; sys.path.append({str(path)!r})\n{code}'
        done = subprocess.run(
            [sys.executable, '-c', code_with_path], capture_output=True, text=True
        )
        assert done.stdout.split() == [expected], done.stderr
    metric = pytest.importorskip('mmdet.evaluation.metrics.coco_panoptic_metric')
    assert metric.PQStat is sys.modules['panopticapi.evaluation'].PQStat
