"""Damaged, altered and hostile files: one line each, no code run, nothing half loaded."""

import collections
import io
import json
import os
import pickle
import random
import re
import struct
import zipfile

import pytest
import torch
from bounded import bounded, figures
from safetensors.torch import save_file
from test_checkpoint_layouts import LAYOUTS, build, in_layout
from test_checkpoint_tool import checkpoint  # noqa: F401

from swinv2_mm.checkpoint import CheckpointError, load_pretrained
from swinv2_mm.checkpoint.building import model_of

CASES = 240
SLOW_CASES = 2400
FILES, SLOW_FILES = 800, 20_000
SUFFIXES = ('.pth', '.legacy.pth', '.safetensors')


def write(weights, path):
    if path.suffix == '.safetensors':
        save_file({name: value.contiguous() for name, value in weights.items()}, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization='.legacy' not in path.name)


# Each takes (dice, weights) and changes them in place. What must be refused says so.


def _any(dice, weights):
    return dice.choice(sorted(name for name in weights if 'relative_coords' not in name))


def drop(dice, weights):
    del weights[_any(dice, weights)]


def rename(dice, weights):
    name = _any(dice, weights)
    position = dice.randrange(len(name))
    weights[name[:position] + 'x' + name[position:]] = weights.pop(name)


def swap(dice, weights):
    one, two = _any(dice, weights), _any(dice, weights)
    if weights[one].shape == weights[two].shape:
        return drop(dice, weights)
    weights[one], weights[two] = weights[two], weights[one]


def transpose(dice, weights):
    flat = [n for n, v in weights.items() if v.ndim == 2 and v.shape[0] != v.shape[1]]
    name = dice.choice(sorted(flat))
    weights[name] = weights[name].t().contiguous()


def cut(dice, weights):
    name = dice.choice(sorted(n for n, v in weights.items() if v.ndim and v.shape[0] > 1))
    weights[name] = weights[name][: dice.randrange(weights[name].shape[0])].clone()


def wrong_type(dice, weights):
    name = _any(dice, weights)
    kind = dice.choice([torch.int64, torch.bool, torch.uint8, torch.complex64])
    weights[name] = weights[name].to(kind)


def not_finite(dice, weights):
    name = _any(dice, weights)
    value = weights[name].float().clone()
    value.view(-1)[dice.randrange(value.numel())] = dice.choice([float('nan'), float('inf')])
    weights[name] = value


def extra(dice, weights):
    name = dice.choice(sorted(n for n in weights if n.endswith('.logit_scale')))
    weights[name.rpartition('.')[0] + '.unheard_of'] = torch.ones(2)


def half(dice, weights):
    for name in weights:
        weights[name] = weights[name].half()


def extra_outside(dice, weights):
    weights['optimizer_step'] = torch.ones(1)


REFUSED = [drop, rename, swap, transpose, cut, wrong_type, not_finite, extra]
ACCEPTED = [half]


# Changes of the bytes: (dice, content) -> content


def truncate(dice, content):
    return content[: dice.randrange(len(content))]


def flip(dice, content):
    content = bytearray(content)
    for _ in range(dice.choice([1, 3, 30])):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return bytes(content)


def flip_start(dice, content):
    content = bytearray(content)
    content[dice.randrange(min(400, len(content)))] = dice.randrange(256)
    return bytes(content)


def blank(dice, content):
    start = dice.randrange(len(content))
    length = dice.choice([8, 512, 5000])
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def insert(dice, content):
    start = dice.randrange(len(content))
    return content[:start] + dice.randbytes(dice.randrange(1, 40)) + content[start:]


def giant_header(dice, content):
    return struct.pack('<Q', dice.choice([1 << 62, 1 << 40, 0, 5])) + content[8:]


DAMAGE = [truncate, flip, flip_start, blank, insert, giant_header]


class Payload:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


def hostile(dice, weights, path, proof):
    call = dice.choice(
        [
            (os.system, (f'touch {proof}',)),
            (os.mkdir, (str(proof),)),
            (eval, (f'open({str(proof)!r}, "w")',)),
            (exec, (f'open({str(proof)!r}, "w")',)),
            (open, (str(proof), 'w')),
            (__import__('subprocess').call, (['touch', str(proof)],)),
        ]
    )
    payload = Payload(call)
    place = dice.choice(['beside', 'value', 'key', 'whole', 'raw'])
    if place == 'raw':
        path.write_bytes(pickle.dumps(payload, protocol=dice.choice([0, 2, 4])))
        return
    content = {
        'beside': {'state_dict': weights, 'meta': payload},
        'value': weights | {dice.choice(sorted(weights)): payload},
        'key': {'state_dict': weights, 'meta': {'hooks': [payload] * 2}},
        'whole': payload,
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=dice.random() < 0.5)


def test_one_bit_of_a_weight(tmp_path):
    """PyTorch does not notice: only the checksum in the file tells."""
    model, path = build(seed=1), tmp_path / 'a.pth'
    torch.save(model.state_dict(), path)
    content = bytearray(path.read_bytes())
    weight = model.get_parameter('layers.0.blocks.0.mlp.fc1.weight').detach().numpy().tobytes()
    content[content.index(weight) + 1] ^= 1
    path.write_bytes(content)
    assert torch.load(path).keys() == model.state_dict().keys()
    with pytest.raises(CheckpointError, match='damaged'):
        load_pretrained(build(seed=2), path)


@pytest.mark.parametrize(
    'num_cases', [CASES, pytest.param(SLOW_CASES, marks=pytest.mark.slow)], ids=['some', 'all']
)
def test_no_file_does_harm(tmp_path, checkpoint, num_cases):  # noqa: F811
    dice = random.Random(num_cases)
    proof = tmp_path / 'proof'
    models = {name: in_layout(build(seed=2), name) for name in LAYOUTS}
    num_parameters = len(list(build().parameters()))
    counts = collections.Counter()
    for number in range(num_cases):
        layout, suffix = dice.choice(sorted(models)), dice.choice(SUFFIXES)
        weights = {name: value.clone() for name, value in models[layout].items()}
        path = tmp_path / f'case{suffix}'
        kind = dice.choice(['state', 'state', 'damage', 'hostile'])
        if kind == 'hostile':
            change, path = hostile, tmp_path / 'case.pth'
            hostile(dice, weights, path, proof)
        elif kind == 'state':
            change = dice.choice([*REFUSED, *ACCEPTED, extra_outside])
            change(dice, weights)
            write(weights, path)
        else:
            change = dice.choice(DAMAGE)
            write(weights, path)
            path.write_bytes(change(dice, path.read_bytes()))
        # Windows where the layout does not tell them; where it does, they are the same.
        status, errors, text = checkpoint(
            'inspect', path, '--json', '--pretrained-window-sizes', '4'
        )
        where = f'case {number}: {layout} {suffix} {change.__name__}: {errors}'
        assert not proof.exists(), where
        assert 'Traceback' not in errors, where
        if status == 1:
            assert errors.startswith('error: ') and errors.count('\n') == 1, where
            assert len(errors) < 600, where
        else:
            assert status == 0, where
            facts = json.loads(text)
            # Whole, or said otherwise: all parameters, none missing without a reason.
            assert len(facts['loaded']) + len(facts['missing']) == num_parameters, where
            assert all('norm' in name for name in facts['missing']), where
        if change in REFUSED or change is hostile:
            assert status == 1, where
        if change in ACCEPTED:
            assert status == 0, where
        counts[change.__name__, 'refused' if status else 'read'] += 1
    print(f'{num_cases} files:', dict(sorted(counts.items())))
    assert sum(counts.values()) == num_cases
    assert all(counts[change.__name__, 'refused'] for change in (*REFUSED, hostile, truncate))


# --- the reader alone, faster, under limits -------------------------------------------------------

OPCODES = [
    op.encode('latin1') for op in ')(.0125BCGHIJKLMNPQRSTUVX]abcdeghijlopqrstu}\x80\x85\x86\x87'
]
ODD_NUMBERS = ('-1', '0', '1e400', '99999999999999999999', 'NaN', '[]', 'null', '"x"', '9' * 5000)


def opcode(dice, content):
    content = bytearray(content)
    for _ in range(dice.choice([1, 2, 5])):
        content[dice.randrange(len(content))] = dice.choice(OPCODES)[0]
    return bytes(content)


def repeat(dice, content):
    """Some of it many times, such as instructions that nest."""
    start = dice.randrange(len(content))
    part = content[start : start + dice.choice([1, 2, 3, 20])]
    return content[:start] + part * dice.choice([2, 50, 3000]) + content[start:]


def odd_number(dice, content):
    """Another number in JSON."""
    found = list(re.finditer(rb'\d+', content))
    if not found:
        return content
    start, end = dice.choice(found).span()
    return content[:start] + dice.choice(ODD_NUMBERS).encode() + content[end:]


INNER = [flip, flip_start, blank, insert, truncate, opcode, repeat]


def within(dice, content, *, suffix):
    """Change what the sums and lengths of a file protect, and correct those."""
    if suffix == '.safetensors':
        (length,) = struct.unpack('<Q', content[:8])
        header = dice.choice([*INNER, odd_number, odd_number])(dice, content[8 : 8 + length])
        return struct.pack('<Q', len(header)) + header + content[8 + length :]
    if suffix == '.legacy.pth':
        return dice.choice(INNER)(dice, content)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, 'w') as new:
        for entry in old.infolist():
            inside = old.read(entry)
            if entry.filename.endswith('.pkl') and inside:
                inside = dice.choice(INNER)(dice, inside)
            new.writestr(entry.filename, inside)
    return out.getvalue()


KINDS = (
    'damaged', 'run code', 'refused', 'lack', 'no place', 'shape', 'window', 'empty', 'no tensors',
    'named weights', 'not the weights', 'NaN', 'type', 'twice', 'no whole', 'several',
    'weights have', 'no weight_map', 'bias', 'sparse file',
)  # fmt: skip


@pytest.mark.parametrize(
    'number', [FILES, pytest.param(SLOW_FILES, marks=pytest.mark.slow)], ids=['some', 'all']
)
def test_no_file_hangs_the_reader(tmp_path, number):
    dice = random.Random(number)
    model, whole = build(seed=1), build(seed=2)
    names = ('own', 'official', 'timm', 'huggingface')
    contents = {}
    for name in names:
        for suffix in SUFFIXES:
            write(in_layout(whole, name), path := tmp_path / f'whole{suffix}')
            contents[name, suffix] = path.read_bytes()
    config = json.dumps(
        {'model_type': 'swinv2', 'image_size': 128, 'patch_size': 4, 'window_size': 4,
         'depths': [2, 1, 3, 2], 'pretrained_window_sizes': [0, 0, 0, 0]}
    ).encode()  # fmt: skip
    counts = collections.Counter()
    with bounded() as call:
        for case in range(number):
            name, suffix = dice.choice(names), dice.choice(SUFFIXES)
            content = contents[name, suffix]
            how = dice.choice(['outside', 'within', 'within', 'config'])
            path, beside = tmp_path / f'case{suffix}', tmp_path / 'config.json'
            beside.unlink(missing_ok=True)
            if how == 'outside':
                content = dice.choice(DAMAGE)(dice, content)
            elif how == 'within':
                content = within(dice, content, suffix=suffix)
            else:
                beside.write_bytes(dice.choice([*INNER, odd_number, odd_number])(dice, config))
            path.write_bytes(content)
            try:
                if case % 4:
                    call(load_pretrained, model, path)
                else:
                    call(model_of, path)
            except CheckpointError as error:
                text = str(error)
                assert text.isprintable() and len(text) < 1500, text
                text = text.replace(str(path), '')
                counts[next((kind for kind in KINDS if kind in text), text[:60])] += 1
            except BaseException as error:
                error.add_note(f'case {case}: {name} {suffix} {how}')
                raise
            else:
                counts['read'] += 1
    print('\nweights, ' + figures(counts, longest_s=call.longest_s))
    assert sum(counts.values()) == number and counts['read'] and counts['damaged']
