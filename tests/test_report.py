"""The report: its numbers, its escaping, its page in a browser, the tool on all three tasks."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from accessibility import serious_findings
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from shrinking import as_text, shrink

from swinv2_mm.datasets.palette import class_colours
from swinv2_mm.errors import UserError
from swinv2_mm.report.classification import ClassificationTask
from swinv2_mm.report.comparison import Run, distinct_names, render_comparison
from swinv2_mm.report.detection import DetectionTask
from swinv2_mm.report.page import confusion_table, fitted, render
from swinv2_mm.report.pictures import chosen
from swinv2_mm.report.segmentation import SegmentationTask
from swinv2_mm.report.work_dir import environment_in, speed_of

CHROMIUM = shutil.which('chromium')
HOSTILE = '<script>alert(1)</script>"\'&$x_{$</svg>'
SIZE = (40, 60)
BOXES = [(2.0, 3.0, 20.0, 30.0), (25.0, 5.0, 55.0, 35.0)]


def mask_of(box):
    mask = np.zeros(SIZE, bool)
    left, top, right, bottom = map(int, box)
    mask[top:bottom, left:right] = True
    return mask


def polygon(box):
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, left, bottom]]


def picture(folder, name):
    path = folder / name
    pixels = np.random.default_rng(len(name)).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, 'PNG')
    return str(path)


def detector(folder, *, classes=(HOSTILE, 'dog', 'rare')):
    """One picture that is right, one with a class confused, a lost object and a false alarm."""
    task = DetectionTask(classes)
    cases = [
        ('right.png', BOXES, [0, 1], [0.9, 0.8]),
        (
            '<img src=x onerror=alert(2)>.png',
            [BOXES[0], (50.0, 1.0, 59.0, 9.0)],
            [1, 0],
            [0.7, 0.5],
        ),
    ]
    for name, boxes, labels, scores in cases:
        truths = [
            {'bbox': box, 'bbox_label': label, 'mask': polygon(box), 'ignore_flag': 0}
            for label, box in enumerate(BOXES)
        ]
        found = InstanceData(
            bboxes=torch.tensor(boxes), labels=torch.tensor(labels), scores=torch.tensor(scores),
            masks=torch.from_numpy(np.stack([mask_of(box) for box in boxes])),
        )  # fmt: skip
        sample = BaseDataElement(metainfo={'ori_shape': SIZE}, pred_instances=found)
        task.add({'img_path': picture(folder, name), 'instances': truths}, sample)
    return task.findings()


def test_detection(tmp_path):
    findings = detector(tmp_path)
    assert [example.score for example in findings.examples] == [1.0, 0.0]
    # Truth by prediction; the last is "nothing".
    assert findings.confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    # Half of the objects of each class are found, before anything wrong: 51 of 101 recalls.
    expected = 100 * 51 / 101
    for row, score in zip(findings.rows[:2], (90, 80), strict=True):
        assert row[0] == 2 and row[1:] == pytest.approx([*[expected] * 4, score])
    assert findings.rows[2][0] == 0 and np.isnan(findings.rows[2][1:]).all()
    assert findings.metrics['mask AP'] == f'{expected:.1f} %'
    assert [set(curves) for curves in findings.curves.values()] == [{0, 1}, {0, 1}]
    assert list(findings.curves) == ['boxes at IoU 0.5', 'masks at IoU 0.5']
    # Right with scores 0.9 and 0.8, one of them twice; wrong with 0.7 and 0.5.
    scores, right, shares = findings.reliability.points()
    assert right.tolist() == [0, 0, 1, 1] and shares == pytest.approx([0.25] * 4)
    assert scores == pytest.approx([0.5, 0.7, 0.8, 0.9])
    assert [example.missed for example in findings.examples] == ['', '1 dog']


def test_detection_without_a_prediction(tmp_path):
    task = DetectionTask(['cat'])
    none = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long), scores=torch.zeros(0)
    )
    sample = BaseDataElement(metainfo={'ori_shape': SIZE}, pred_instances=none)
    truth = [{'bbox': BOXES[0], 'bbox_label': 0, 'ignore_flag': 0}]
    task.add({'img_path': 'a', 'instances': truth}, sample)
    task.add({'img_path': 'b', 'instances': []}, sample)
    findings = task.findings()
    assert findings.metrics['box AP'] == '0.0 %' and not findings.has_masks
    assert [example.score for example in findings.examples] == [0.0, 1.0]


def test_segmentation():
    task = SegmentationTask(['a', 'b', 'never'])
    truth = torch.zeros(1, 4, 5, dtype=torch.long)
    truth[0, :, 2:] = 1
    truth[0, 0] = 255
    guess = torch.zeros(1, 4, 5, dtype=torch.long)
    guess[0, :, 3:] = 1
    sample = BaseDataElement(gt_sem_seg=PixelData(data=truth), pred_sem_seg=PixelData(data=guess))
    task.add({'img_path': 'a'}, sample)
    findings = task.findings()
    assert findings.confusion.tolist() == [[6, 0, 0], [3, 6, 0], [0, 0, 0]]
    assert findings.rows[0] == pytest.approx((40, 100 * 6 / 9, 100 * 6 / 9, 100))
    assert findings.rows[1] == pytest.approx((60, 100 * 6 / 9, 100, 100 * 6 / 9))
    assert np.isnan(findings.rows[2][1])
    assert findings.metrics['mIoU'] == '66.67 %'
    assert findings.examples[0].score == pytest.approx(6 / 9)
    assert not findings.curves


def test_curves_of_a_segmentor():
    task = SegmentationTask(['a', 'b', 'never'])
    truth = torch.tensor([[0, 0, 1, 255]])
    # Probability of b: 0.1, 0.6, 0.8 and, where nothing counts, 0.9.
    of_b = torch.tensor([[0.1, 0.6, 0.8, 0.9]])
    logits = torch.stack((1 - of_b, of_b, torch.zeros(1, 4))).log()
    parts = {
        'gt_sem_seg': truth[None],
        'pred_sem_seg': (of_b > 0.5).long()[None],
        'seg_logits': logits,
    }
    for _ in range(2):
        sample = BaseDataElement(**{name: PixelData(data=data) for name, data in parts.items()})
        task.add({'img_path': 'a'}, sample)
    findings = task.findings()
    curves = findings.curves['pixels']
    assert set(curves) == {0, 1}
    # Sure by 0.9, 0.6 and 0.8; the second is wrong.
    assert findings.reliability.error == pytest.approx((0.1 + 0.6 + 0.2) / 3)
    recall, precision = curves[1]
    steps = [(r, p) for r, p in zip(recall, precision, strict=True)]
    assert steps[0] == (1, 1) and (1, 0.5) in steps and steps[-1] == (1, pytest.approx(1 / 3))
    recall, precision = curves[0]
    assert (recall[0], precision[0]) == (0.5, 1) and recall[-1] == 1


def test_classification():
    task = ClassificationTask(['a', 'b', 'never'])
    for label, scores in ((0, (0.8, 0.1, 0.1)), (0, (0.3, 0.6, 0.1)), (1, (0.2, 0.7, 0.1))):
        sample = BaseDataElement(
            gt_label=torch.tensor([label]), pred_score=torch.tensor(scores),
            metainfo={'ori_shape': SIZE},
        )  # fmt: skip
        task.add({'img_path': 'a'}, sample)
    findings = task.findings()
    # Bins of 0.8, 0.6 and 0.7, of which the second is wrong.
    assert findings.metrics == {'top-1': '66.67 %', 'calibration error': '36.7 %'}
    assert findings.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert findings.rows[0] == pytest.approx((2, 100, 50, 100))
    assert findings.rows[1] == pytest.approx((1, 50, 100, 100))
    assert np.isnan(findings.rows[2][1])


def test_groups_do_not_overlap(tmp_path):
    example = detector(tmp_path).examples[0]
    for number in (0, 1, 2, 5, 9):
        examples = [type(example)(**{**vars(example), 'score': i}) for i in range(number)]
        groups = [(e.score, group) for e, group in chosen(examples, number=2)]
        assert len({score for score, _ in groups}) == len(groups) == min(number, 6)
        if number:
            assert (0, 'worst') in groups
        if number > 1:
            assert (number - 1, 'best') in groups


def test_large_confusion_keeps_the_confused(tmp_path):
    findings = detector(tmp_path)
    findings.confusion_names = [f'c{i}' for i in range(60)]
    findings.confusion = 10 * np.eye(60, dtype=int)
    findings.confusion[50, 3] = 5
    table = confusion_table(findings)
    assert len(table['names']) == 25 and table['left_out'] == 35
    assert {'c3', 'c50'} <= set(table['names'])
    row = table['rows'][table['names'].index('c50')]
    assert row[table['names'].index('c3')] == (33, 5)


def page_options(findings):
    records = [{'loss': 1 / i, 'lr': 0.1, 'iter': i, 'step': i} for i in range(1, 9)]
    return dict(
        title=HOSTILE,
        facts={'Settings': {HOSTILE: HOSTILE}, 'Environment': {}},
        config=f'name = {HOSTILE!r}',
        records=[*records, {HOSTILE: 0.5, 'step': 4}, {HOSTILE: 0.7, 'step': 8}],
        findings=findings,
        classes=[HOSTILE, 'dog', 'rare'],
        class_colours=class_colours(3),
    )


def page_of(folder):
    return render(**page_options(detector(folder)), number_per_group=2)


def compared(folder, *, classes=(HOSTILE, 'dog', 'rare'), **changed):
    records = [{'loss': 1 / i, 'lr': 0.1, 'iter': i, 'step': i} for i in range(1, 9)]
    cfg = Config({'model': {'window': 8, 'heads': [{'n': 1}]}, 'work_dir': 'a'})
    runs = [Run(HOSTILE, cfg, records, detector(folder), (HOSTILE, 'dog', 'rare'))]
    other = Config({'model': {'window': 16, 'heads': [{'n': 1}]}, 'work_dir': 'b'})
    task = detector(folder)
    task.examples = [replace(e, score=e.score / 2, **changed) for e in task.examples]
    runs.append(Run('second', other, records, task, classes))
    return render_comparison(runs, class_colours=class_colours(3), number_per_group=1)


def test_comparison(tmp_path):
    page = compared(tmp_path)
    found = Inventory(page)
    assert found.tags.count('script') == 1 and 'img' not in found.tags and not found.handlers
    assert 'model.window' in page and 'heads' not in page and 'work_dir' not in page
    # The image on which they differ (1 and a half), then the other; truth and a side per run.
    titles = re.findall(r'<figcaption>(.*?):', page)
    assert [title for title in titles if title.startswith('second')] == [
        'second (0.50)',
        'second (0.00)',
    ]
    assert found.tags.count('figure') == 6
    with pytest.raises(UserError, match='other classes'):
        compared(tmp_path, classes=('dog', HOSTILE, 'rare'))
    with pytest.raises(UserError, match='other images'):
        compared(tmp_path, path='elsewhere.png')
    assert distinct_names([Path('a/x/run'), Path('b/x/run')]) == ['a/x/run', 'b/x/run']


class Inventory(HTMLParser):
    """Counts the elements of a page and gathers what they refer to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.handlers = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ('src', 'href', 'xlink:href', 'data', 'action'):
                self.links.append(value)
            if name.startswith('on'):
                self.handlers.append(name)


def test_hostile_names_stay_text(tmp_path):
    page = page_of(tmp_path)
    found = Inventory(page)
    assert found.tags.count('script') == 1 and 'img' not in found.tags
    assert not found.handlers
    assert '&lt;script&gt;alert(1)' in page and '<script>alert' not in page
    # Pictures are inside, links lead to places in the page.
    assert all(link.startswith(('data:image/', '#')) for link in found.links)
    assert not re.search(r'(?:url\(|@import)\s*["\']?(?!#)', page)


# Runs in a copy of the page: works the controls as a person would and writes down what is seen.
PROBE = """
<script>
window.seen = {errors: []};
window.addEventListener('error', function (e) { seen.errors.push(e.message); });
console.error = function (m) { seen.errors.push(String(m)); };
document.addEventListener('securitypolicyviolation', function (e) {
  seen.errors.push(e.blockedURI); });
</script>
"""
STEPS = """
<script>
(function () {
  const all = function (q) { return Array.from(document.querySelectorAll(q)); };
  const visible = function (q) { return all(q).filter(function (e) {
    return e.getClientRects().length > 0; }).length; };
  const change = function (id, key, value, event) { const e = document.getElementById(id);
    e[key] = value; e.dispatchEvent(new Event(event)); };
  const note = function (name) {
    seen[name] = ['.card', '.box', '.mask'].map(visible); };
  note('start');
  document.getElementById('boxes').click(); note('no_boxes');
  document.getElementById('masks').click(); note('nothing');
  document.getElementById('boxes').click(); document.getElementById('masks').click(); note('again');
  const tags = all('.name-tag').map(function (e) { return e.getBoundingClientRect(); });
  seen.tags = tags.length;
  seen.touching = tags.filter(function (a, i) { return tags.slice(i + 1).some(function (b) {
    return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  }); }).length;
  change('score', 'value', '0.75', 'input'); note('from_075');
  seen.words = all('.objects').map(function (e) { return e.textContent; });
  change('score', 'value', '0.3', 'input');
  change('group', 'value', 'best', 'change'); note('best');
  seen.count = document.getElementById('count').textContent;
  change('group', 'value', '', 'change');
  change('class', 'value', '1', 'change'); note('dog');
  change('class', 'value', '', 'change'); note('end');
  seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.charts = all('.chart svg').map(function (e) {
    return e.getBoundingClientRect().height > 100; });
  const out = document.createElement('pre'); out.id = 'seen';
  out.textContent = JSON.stringify(seen); document.body.append(out);
})();
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason='chromium is not installed')
@pytest.mark.parametrize('width', [390, 1280])
def test_page_in_a_browser(width, tmp_path):
    page = page_of(tmp_path)
    page = page.replace('<head>', f'<head>{PROBE}', 1).replace('</body>', f'{STEPS}</body>')
    (tmp_path / 'page.html').write_text(page)
    # A frame: headless windows have a least width.
    (tmp_path / 'frame.html').write_text(
        f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe><script>'
        "onload = function () { document.title = frames[0].document.getElementById('seen')"
        '.textContent; }</script>'
    )
    process = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--allow-file-access-from-files',
         f'--user-data-dir={tmp_path / "profile"}', '--virtual-time-budget=4000', '--dump-dom',
         (tmp_path / 'frame.html').as_uri()],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    title = re.search(r'<title>(.*?)</title>', process.stdout, re.DOTALL)
    assert title, process.stderr
    seen = json.loads(title[1])
    assert seen['errors'] == []
    # Cards, boxes, masks: two pictures with two objects on either side.
    assert seen['start'] == seen['again'] == seen['end'] == [2, 8, 8]
    assert seen['no_boxes'] == [2, 0, 8] and seen['nothing'] == [2, 0, 0]
    assert seen['tags'] == 8 and seen['touching'] == 0, 'each object has a name, none over another'
    assert seen['from_075'] == [2, 6, 6]
    assert seen['words'] == ['2 objects', '0 objects', '2 objects', '2 objects']
    assert seen['best'] == [1, 4, 4] and seen['count'] == '1 of 2'
    assert seen['dog'] == [2, 8, 8]
    assert seen['wide'] <= 0, 'the page scrolls sideways'
    assert seen['charts'] and all(seen['charts'])


def test_page_hinders_nobody(browser, tmp_path):
    """Names, contrast in both themes, keyboard: axe-core finds nothing serious."""
    (tmp_path / 'page.html').write_text(page_of(tmp_path))
    (tmp_path / 'comparison.html').write_text(compared(tmp_path))
    for name, theme, width in (('page', 'dark', 390), ('comparison', 'light', 1280)):
        page = browser.new_page(viewport={'width': width, 'height': 900}, color_scheme=theme)
        # What is injected into the page to look at it is a script that its policy refuses.
        page.goto((tmp_path / f'{name}.html').as_uri())
        assert serious_findings(page) == [], (name, theme)
        page.keyboard.press('Tab')
        assert page.evaluate('document.activeElement.tagName') == 'A'
        page.close()


def test_a_page_of_many_pictures_is_small(tmp_path, monkeypatch):
    """As many examples as fit, each picture once, whatever is in them."""
    rng = np.random.default_rng(0)
    findings = detector(tmp_path)
    examples = []
    for number in range(18):
        path = tmp_path / f'{number}.png'
        Image.fromarray(rng.integers(0, 256, (120, 120, 3), dtype=np.uint8)).save(path)
        examples.append(replace(findings.examples[0], path=str(path), score=number / 18))
    findings.examples = examples
    show = partial(render, **page_options(findings))
    pages = [fitted(lambda number: show(number_per_group=number), number=n) for n in (6, None)]
    assert [page.count('<article') for page in pages] == [18, 18]
    assert pages[0].count('data:image/jpeg') == 18 and len(pages[0]) < 5e6
    monkeypatch.setattr('swinv2_mm.report.page._MOST_BYTES', len(pages[0]) - 1)
    page = fitted(lambda number: show(number_per_group=number), number=None)
    assert page.count('<article') == 15


CONFIGS = {
    'classification': 'swinv2-nano-w8_digits.py',
    'segmentation': 'upernet_swinv2-nano-w8_digits.py',
    'detection': 'cascade-mask-rcnn_swinv2-nano-w8_digits.py',
}


def work_dir_of(task, folder):
    """The work dir of a training that stopped at once."""
    cfg = Config.fromfile(ROOT / 'configs' / task / CONFIGS[task])
    tree = shrink(cfg)
    tree |= {'val_dataloader': tree['test_dataloader'], 'val_cfg': {'type': 'ValLoop'}}
    tree['val_evaluator'] = tree['test_evaluator']
    (folder / 'tiny.py').write_text(as_text(tree))
    cfg = Config.fromfile(folder / 'tiny.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict()}, folder / 'iter_1.pth')
    return folder


@pytest.mark.parametrize('task', CONFIGS)
def test_tool(task, tool, use_data, tmp_path):
    work_dir = work_dir_of(task, tmp_path)
    out = tmp_path / 'new' / 'page.html'
    status, errors = tool('report', work_dir, '--out', out, '--num-images', 3, '--num-examples', 1)
    assert status == 0, errors
    page = out.read_text()
    tiles = dict(re.findall(r'<div class="tile">(.*?)<b>(.*?)</b>', page))
    assert tiles and 'on 3 pictures' in page
    assert page.count('<article') == 3
    assert ('id="boxes"' in page) == (task == 'detection')
    assert ('id="masks"' in page) == (task != 'classification')
    assert all(link.startswith(('data:', '#')) for link in Inventory(page).links)


def test_bad_command_line(refused, use_data, tmp_path):
    assert 'nowhere' in refused('report', tmp_path / 'nowhere')
    assert 'no config' in refused('report', tmp_path)
    config = ROOT / 'configs' / 'classification' / CONFIGS['classification']
    shutil.copy(config, tmp_path / 'a.py')
    shutil.copy(config, tmp_path / 'b.py')
    line = refused('report', tmp_path)
    assert '--config' in line and 'a.py, b.py' in line
    assert 'no checkpoint' in refused('report', tmp_path, '--config', config)
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'iter_1.pth')
    assert 'iter_1.pth' in refused('report', tmp_path, '--config', config)
    assert '--num-images' in refused('report', tmp_path, '--config', config, '--num-images', 0)
    assert not (tmp_path / 'report.html').exists()
    runs = []
    for task in ('classification', 'detection'):
        runs.append(tmp_path / task)
        runs[-1].mkdir()
        (runs[-1] / 'a.py').write_text(f"_base_ = 'swinv2_mm::{task}/{CONFIGS[task]}'\n")
        shutil.copy(tmp_path / 'iter_1.pth', runs[-1])
    assert 'detection of detection' in refused('report', *runs)


def test_work_dir(tmp_path):
    folder = tmp_path / '20260101_000000'
    folder.mkdir()
    (folder / '20260101_000000.log').write_text(
        '2026/01/01 00:00:00 - mmengine - INFO - \n  PyTorch: 2.15.0\n  - GCC 13: x\n'
        '  GPU 0: A100\n'
        '2026/01/01 00:00:00 - mmengine - INFO - Config:\nlr: 3\n'
    )
    assert environment_in(tmp_path) == {'PyTorch': '2.15.0', 'GPU 0': 'A100'}
    records = [{'lr': 1, 'iter': i, 'step': i, 'time': 0.5, 'memory': 100 * i} for i in (1, 2, 3)]
    facts = speed_of(records, cfg=Config({'train_dataloader': {'batch_size': 4}}))
    assert facts['images per second and process'] == '8.0'
    assert facts['peak memory of the process (RAM)'] == '300 MB'
