"""The figures of the documentation: small, used, and of the run whose scores stand beside them."""

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT
from documents import documents

FIGURES = ROOT / 'docs' / 'images'
SCORES = json.loads((FIGURES / 'scores.json').read_text())


def test_figures_are_small_and_used():
    shown = {
        (ROOT / document).parent / link
        for document in documents()
        for link in re.findall(r'!\[[^\]]*\]\(([^)#]+)\)', (ROOT / document).read_text())
        if '://' not in link
    }
    figures = set(FIGURES.glob('*.webp'))
    assert figures == {path for path in map(Path.resolve, shown) if path.parent == FIGURES}
    assert len(figures) > 8
    assert all(path.stat().st_size <= 150_000 for path in figures)


@pytest.mark.parametrize('document', ['README.md', 'README_zh-CN.md', 'docs/results.md'])
def test_scores_are_of_the_run_of_the_figures(document):
    expected = [score['window 8'] for score in SCORES.values()]
    rows = re.findall(
        r'^\|[^|]+\|[^|]+\| ([\d.]+) \| [\d.]+ \|$', (ROOT / document).read_text(), re.M
    )
    assert list(map(float, rows)) == expected


def test_recipes_state_the_same_scores():
    folder = ROOT / 'configs'
    for name, scores in {
        'classification/swinv2-nano-w8_digits.py': ['classification: top-1 accuracy'],
        'segmentation/upernet_swinv2-nano-w8_digits.py': ['segmentation: mIoU'],
        'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py': [
            'detection: box AP50', 'detection: mask AP50',
        ],
    }.items():  # fmt: skip
        (line,) = re.findall(r'^# Score: (.*)$', (folder / name).read_text(), re.M)
        assert [float(n) for n in re.findall(r'([\d.]+) %', line)] == [
            SCORES[score]['window 8'] for score in scores
        ], name
