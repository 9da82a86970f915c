"""The model lists: complete, in OpenMMLab's format, with figures that can be measured again."""

import re
import shutil
from pathlib import Path

import modelindex
import pytest
import yaml
from conftest import ROOT

from dev.metafile import measured_metadata, read_metafile, refreshed, to_text
from swinv2_mm.errors import UserError

LEAVES = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
}
METAFILES = sorted((ROOT / 'configs').glob('*/metafile.yml'))
ENTRIES = [entry for path in METAFILES for entry in read_metafile(path)['Models']]
RESULTS = [(entry, result) for entry in ENTRIES for result in entry.get('Results', [])]
# A detector takes seconds to measure: one of each kind, the others when they are written.
SAMPLE = [
    'configs/classification/swinv2-nano-w8_flowers.py',
    'configs/detection/cascade-mask-rcnn_swinv2-nano-w12_facade.py',
    'configs/segmentation/upernet_swinv2-nano-w8_facade.py',
]


def test_every_config_has_one_entry():
    listed = [entry['Config'] for entry in ENTRIES]
    assert sorted(listed) == sorted(LEAVES)
    assert all(entry['Name'] == Path(entry['Config']).stem for entry in ENTRIES)


def test_model_index_loads():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    assert index.check(silent=True) == []
    assert {model.config for model in index.models} == LEAVES
    imported = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert imported == [path.relative_to(ROOT).as_posix() for path in METAFILES]


def test_the_paper_is_the_right_one():
    for path in METAFILES:
        for collection in read_metafile(path)['Collections']:
            assert collection['Paper']['URL'] == 'https://arxiv.org/abs/2111.09883'


@pytest.mark.parametrize('config', SAMPLE, ids=lambda c: Path(c).stem)
def test_figures_are_those_measured(config):
    (entry,) = [entry for entry in ENTRIES if entry['Config'] == config]
    measured = measured_metadata(ROOT / config)
    assert {key: entry['Metadata'][key] for key in measured} == measured


@pytest.mark.slow
@pytest.mark.parametrize('config', sorted(LEAVES - set(SAMPLE)), ids=lambda c: Path(c).stem)
def test_all_figures_are_those_measured(config):
    test_figures_are_those_measured(config)


def test_every_score_says_where_it_is_from():
    assert RESULTS
    log = (ROOT / 'docs' / 'results.md').read_text()
    for entry, result in RESULTS:
        kind, _, source = result['Source'].partition(': ')
        assert kind in ('published', 'measured') and source, entry['Name']
        if kind == 'published':
            assert 'nano' not in entry['Name']
            continue
        assert source == 'docs/results.md'
        for score in result['Metrics'].values():
            # AP50 stands there as a fraction.
            assert f'{score:.1f}' in log or f'{score / 100:.3f}' in log, entry['Name']


def test_published_scores_stand_in_the_header_of_their_config():
    for entry, result in RESULTS:
        header = (ROOT / entry['Config']).read_text().partition('_base_')[0]
        (line,) = [text for text in header.splitlines() if text.startswith('# Score:')]
        for score in result['Metrics'].values():
            assert f'{score:g}' in line or f'{score / 100:g}' in line, (entry['Name'], score)


def _project(path):
    return path.parent.name


@pytest.mark.parametrize('path', sorted(ROOT.glob('projects/*/metafile.yml')), ids=_project)
def test_projects_list_the_scores_that_their_configs_quote(path):
    content = read_metafile(path)
    quoted = {
        config.relative_to(ROOT).as_posix()
        for config in path.parent.glob('configs/**/*.py')
        if re.search(r'(?m)^# Score: .*published [\d.]+', config.read_text())
    }
    assert {entry['Config'] for entry in content['Models']} == quoted
    for entry in content['Models']:
        header = (ROOT / entry['Config']).read_text()
        (line,) = [text for text in header.splitlines() if text.startswith('# Score:')]
        assert entry['Name'] == Path(entry['Config']).stem
        for result in entry['Results']:
            assert result['Source'].startswith('published: ')
            for score in result['Metrics'].values():
                assert float(score) in [float(x) for x in re.findall(r'\d+\.\d+', line)], line


@pytest.fixture
def repository(tmp_path):
    """A repository with one task and two configs."""
    shutil.copytree(ROOT / 'configs' / '_base_', tmp_path / 'configs' / '_base_')
    folder = tmp_path / 'configs' / 'classification'
    folder.mkdir()
    shutil.copy(
        ROOT / 'configs' / 'classification' / 'swinv2-nano-w8_flowers.py', folder / 'five.py'
    )
    (folder / 'ten.py').write_text("_base_ = 'five.py'\nmodel = dict(head=dict(num_classes=10))\n")
    return tmp_path


def test_refreshing(repository):
    folder = repository / 'configs' / 'classification'
    kept = {
        'Name': 'by hand',
        'Config': 'configs/classification/ten.py',
        'Metadata': {'FLOPs': 1, 'Epochs': 7},
        'Results': [{'Task': 'T', 'Dataset': 'D', 'Metrics': {'top 1': 1.0}}],
    }
    gone = {**kept, 'Config': 'configs/classification/gone.py'}
    content = {'Collections': [{'Name': 'C'}], 'Models': [gone, kept]}
    five, ten = refreshed(content, folder=folder)['Models']
    assert ten['Name'] == 'by hand' and ten['Results'] == kept['Results']
    assert ten['Metadata']['Epochs'] == 7 and ten['Metadata']['FLOPs'] > 1e7
    assert five['In Collection'] == 'C' and 'Results' not in five
    params = [entry['Metadata']['Parameters'] for entry in (ten, five)]
    assert params[0] - params[1] == 5 * 257
    assert yaml.safe_load(to_text({'Models': [five]})) == {'Models': [five]}


def test_out_of_date_list_is_reported_and_updated(repository, tool):
    path = repository / 'configs' / 'classification' / 'metafile.yml'
    path.write_text('Collections: [{Name: C}]\nModels: []\n')
    status, errors = tool('../dev/metafile', path, '--check')
    assert status == 1 and 'out of date' in errors and 'Models: []' in path.read_text()
    assert tool('../dev/metafile', path)[0] == 0
    assert len(read_metafile(path)['Models']) == 2
    assert tool('../dev/metafile', path, '--check')[0] == 0


@pytest.mark.parametrize('text', ['Models: [', 'Models: 3', '[]'])
def test_list_that_is_none(text, tmp_path):
    (tmp_path / 'metafile.yml').write_text(text)
    with pytest.raises(UserError, match=r'metafile\.yml'):
        read_metafile(tmp_path / 'metafile.yml')
