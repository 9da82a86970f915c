"""MindSpore's files: those that MindCV wrote give its logits, hostile ones are refused.

``dev/mindspore_weights.py`` made ``golden/mindcv_*``; whole models, which it makes too, are
compared where ``SWINV2_MINDCV`` names their folder.
"""

import copy
import json
import os
import random
import re
import zlib
from pathlib import Path

import pytest
import torch
from bounded import bounded

from swinv2_mm.checkpoint import CheckpointError, load_pretrained, save_pretrained
from swinv2_mm.checkpoint.building import model_of
from swinv2_mm.checkpoint.mindspore_file import read_mindspore
from swinv2_mm.checkpoint.reading import open_weights
from swinv2_mm.engine.filling import fill_model

GOLDEN = Path(__file__).parent / 'golden'
SMALL = GOLDEN / 'mindcv_swinv2.ckpt'
WHOLE = Path(os.environ.get('SWINV2_MINDCV', 'not given'))
# The most that logits may differ by, relative to the largest of them.
TOLERANCE = 1e-6


def expected(path):
    """The image that MindCV was given, and its logits."""
    found = json.loads(path.with_suffix('.json').read_text())
    side = found['image_size']
    values = torch.arange(3 * side * side, dtype=torch.float64)
    image = (values * 0.7).sin().float().view(1, 3, side, side)
    return image, torch.tensor([found['logits']])


@torch.inference_mode()
def deviation(model, path):
    image, logits = expected(path)
    return ((model(image) - logits).abs().max() / logits.abs().max()).item()


@pytest.fixture(scope='module')
def small():
    return model_of(SMALL)


def test_logits_are_those_of_mindcv(small):
    model, report = small
    assert SMALL.stat().st_size < 50_000
    assert report.layout == 'mindspore' and report.numerics == 'mindspore'
    assert not report.missing and 'numerics: mindspore' in str(report)
    assert deviation(model, SMALL) < TOLERANCE
    # The epsilons and the GELU of the official code give others.
    other = copy.deepcopy(model)
    other.backbone.set_numerics('official')
    assert deviation(other, SMALL) > 10 * TOLERANCE


def test_stages_may_be_called_layers(small):
    tensors = {
        re.sub(r'^0\.blocks\.(\d)\.(blocks|downsample)', r'layers.\1.\2', name): value
        for name, value in read_mindspore(SMALL).items()
    }
    tensors = {re.sub(r'^0\.', 'layers.0.', name): value for name, value in tensors.items()}
    model, report = model_of(tensors)
    assert report.layout == 'mindspore' and deviation(model, SMALL) < TOLERANCE


def test_state_of_the_optimizer_is_left_out():
    tensors = read_mindspore(SMALL)
    state = {f'moment{n}.{name}': value for n in (1, 2) for name, value in tensors.items()}
    model, report = model_of({**tensors, **state, 'global_step': torch.tensor(7)})
    assert report.dropped.items() >= dict.fromkeys(state, 'state of the optimizer').items()
    assert deviation(model, SMALL) < TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(not WHOLE.is_dir(), reason='needs SWINV2_MINDCV=FOLDER')
def test_logits_of_a_whole_model_are_those_of_mindcv():
    path = WHOLE / 'swinv2_tiny_window8.ckpt'
    model, report = model_of(path)
    assert report.pretrained_window_sizes == ((8, 8),) * 4
    worst = deviation(model, path)
    print(f'SwinV2-T window 8: logits differ by {worst:.1e}')
    assert worst < TOLERANCE


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_numerics_are_saved_with_the_weights(small, suffix, tmp_path):
    model, _ = small
    assert not save_pretrained(model, tmp_path / f'own{suffix}')
    again, report = model_of(tmp_path / f'own{suffix}')
    assert report.layout == 'own' and report.numerics == 'mindspore'
    assert deviation(again, SMALL) < TOLERANCE
    # A model of the official numerics takes those of the weights, and gives them up with others.
    official = copy.deepcopy(model)
    official.backbone.set_numerics('official')
    plain = copy.deepcopy(official.state_dict())
    assert 'backbone.numerics' not in plain
    official.load_state_dict(model.state_dict())
    assert official.backbone.numerics == 'mindspore' and deviation(official, SMALL) < TOLERANCE
    fill_model(official, open_weights(plain))
    assert official.backbone.numerics == 'official'
    fill_model(official, open_weights(model.state_dict()))
    assert official.backbone.numerics == 'mindspore'


def test_layouts_that_have_no_numerics_say_so(small, tmp_path):
    left_out = save_pretrained(small[0], tmp_path / 'official.pth', layout='official')
    assert 'numerics' in left_out
    again, report = model_of(tmp_path / 'official.pth')
    assert report.numerics == 'official' and 1e-6 < deviation(again, SMALL) < 1e-2


def test_unknown_numerics_are_refused(small):
    state = small[0].backbone.state_dict()
    for entry in (torch.tensor(9), torch.zeros(3), torch.tensor(float('nan'))):
        with pytest.raises(CheckpointError, match='numerics'):
            load_pretrained(copy.deepcopy(small[0].backbone), {**state, 'numerics': entry})
        with pytest.raises(RuntimeError, match='numerics'):
            copy.deepcopy(small[0].backbone).load_state_dict({**state, 'numerics': entry})


# --- bytes ----------------------------------------------------------------------------------------


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def value(tag, dims, kind='Float32', content=b'', *, packed=False):
    sizes = b''.join(map(varint, dims))
    listed = field(1, sizes) if packed else b''.join(b'\x08' + varint(d) for d in dims)
    return field(1, field(1, tag) + field(2, listed + field(2, kind.encode()) + field(3, content)))


NUMBERS = torch.arange(6, dtype=torch.float32)
RAW = NUMBERS.numpy().tobytes()


def test_types_scalars_slices_and_checksums_are_read(tmp_path):
    path = tmp_path / 'x.ckpt'
    content = b''.join([
        value(b'a', [2, 3], content=RAW[:8]), value(b'a', [2, 3], content=RAW[8:]),
        value(b'b', [0], 'Int64', (7).to_bytes(8, 'little')),
        value(b'c', [], 'Bool', b'\1'),
        value(b'd', [2, 1], 'BFloat16', b'\x80\x3f\x00\x40', packed=True),
        value(b'e', [0, 4]),
    ])  # fmt: skip
    for trailer in (b'', b'crc_num' + zlib.crc32(content).to_bytes(10, 'big')):
        path.write_bytes(content + trailer)
        found = read_mindspore(path)
        assert torch.equal(found['a'], NUMBERS.view(2, 3))
        assert found['b'] == 7 and found['b'].shape == () and found['c'].item() is True
        assert found['d'].tolist() == [[1], [2]] and found['e'].shape == (0, 4)
    path.write_bytes(content + b'crc_num' + (1).to_bytes(10, 'big'))
    with pytest.raises(CheckpointError, match='checksum'):
        read_mindspore(path)


HUGE = 2**63 - 1
HOSTILE = {
    'too few bytes': value(b'a', [2, 4], content=RAW),
    'too many bytes': value(b'a', [2, 2], content=RAW),
    'a size that overflows': value(b'a', [HUGE] * 8, content=RAW),
    'a length beyond the end': b'\x0a' + varint(HUGE) + b'x',
    'a tensor beyond its value': field(1, field(1, b'a') + b'\x12' + varint(99)) + bytes(99),
    'a number without end': b'\x0a' + b'\xff' * 20,
    'an unknown type': value(b'a', [6], 'str', RAW),
    'the same name again': value(b'a', [6], content=RAW) + value(b'b', [6], content=RAW)
    + value(b'a', [6], content=RAW),
    'no name': field(1, field(2, field(2, b'Float32'))),
    'no tensor': field(1, field(1, b'a')),
    'a hash table': field(1, field(1, b'a') + field(3, b'x')),
    'a name that is no text': value(b'\xff\xfe', [6], content=RAW),
    'a long name': value(b'a' * 5000, [6], content=RAW),
    'many dimensions': value(b'a', [1] * 4_000_000, packed=True),
    'many fields': field(1, field(1, b'a') + field(2, b'\x0a\x00' * 2_000_000)),
    'many values': value(b'a', [0]) * 30_000,
    'another field': value(b'a', [6], content=RAW) + field(2, b'x'),
    'a group': b'\x0a\x02\x0b\x0c',
    'noise': b'\x0a' + random.Random(0).randbytes(100_000),
    'a line': b'\n' * 30,
}  # fmt: skip


@pytest.mark.parametrize('content', HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_in_one_line(content, tmp_path):
    path = tmp_path / 'x.ckpt'
    path.write_bytes(content)
    with bounded(memory=1 << 30) as call, pytest.raises(CheckpointError) as info:
        call(open_weights, path)
    message = str(info.value)
    assert '\n' not in message and message.isprintable() and len(message) < 400, message
    assert 'MindSpore' in message


def test_damaged_files_are_read_or_refused(tmp_path):
    dice, path = random.Random(0), tmp_path / 'x.ckpt'
    whole = SMALL.read_bytes()
    refused = 0
    with bounded(memory=1 << 30) as call:
        for _ in range(200):
            content = bytearray(whole)
            if dice.random() < 0.3:
                del content[dice.randrange(len(whole)) :]
            for _ in range(dice.randrange(1, 4)):
                at = dice.randrange(dice.choice((40, len(content) + 1)))
                content[at : at + 1] = dice.randbytes(dice.randrange(3))
            path.write_bytes(content)
            try:
                call(read_mindspore, path)
            except CheckpointError:
                refused += 1
    assert refused > 100
