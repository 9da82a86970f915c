"""Define the top-level config entries beyond MMEngine's, in one table.

``--cfg-options``, the refusal of misspelt entries, the documentation and the tools that act on an
entry all read ``ENTRIES``; ``read_entry`` is the one way to its value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from swinv2_mm.errors import UserError

# What is flipped, as dimensions of a map (..., H, W).
FLIPS = {'none': (), 'horizontal': (-1,), 'vertical': (-2,), 'diagonal': (-2, -1)}
PARTS = ('train', 'val', 'test', 'infer')
POLICIES = ('raise', 'skip')
PRECISIONS = ('bf16', 'fp16')
LOG_BACKENDS = ('tensorboard', 'mlflow', 'wandb', 'aim', 'clearml')
_SYNC_BN = ('torch', 'mmcv')
# Registered by the Runner in whatever config, in this order.
STANDARD_HOOKS = ('IterationSeedHook', 'ThroughputHook', 'PreemptionHook', 'NonFiniteHook')
# In ``fresh_parameters``: what depends on the number of classes, where that differs.
HEADS = 'heads'
# What a resumed training has from its checkpoint, unless it is told to take the config's.
RESUMED = ('lr', 'schedule', 'weight_decay', 'optimizer', 'seed')

# What each kind of parallel training takes beside its name, with the values; the first is the
# default. A number of processes may be any.
_NUMBER = (None, 'N')
_PARALLEL: dict[str, dict[str, tuple]] = {
    'ddp': {},
    'zero1': {},
    'fsdp': {
        'init': ('whole', 'sharded'),
        'checkpoint': ('whole', 'sharded'),
        'shards': _NUMBER,
    },
}
_LARGEST_FACTOR = 16  # of a test size; a larger number is probably meant in pixels


@dataclass(frozen=True)
class Entry:
    """A top-level entry of a config.

    Attributes:
        meaning: What it sets, as the documentation says it.
        read: Validate a value and return it in one form; raise ``UserError``.
        default: The value of a config that lacks the entry, in the form that ``read`` returns.
        takes_none: Whether ``None`` is the default too.
    """

    meaning: str
    read: Callable[[Any], Any]
    default: Any = None
    takes_none: bool = True


def read_entry(cfg: Mapping[str, Any], name: str) -> Any:
    """Return the value of an entry of ``ENTRIES``, validated, or its default.

    Args:
        cfg: A config.
        name: Name of the entry.

    Raises:
        UserError: If the config has a value that the entry cannot take.
    """
    entry = ENTRIES[name]
    value = cfg.get(name)
    is_default = value is None and (entry.takes_none or name not in cfg)
    return entry.default if is_default else entry.read(value)


def _parallel(value: Any) -> dict[str, Any]:
    options = value if isinstance(value, dict) else {'type': value}
    kind = options.get('type')
    if kind not in _PARALLEL:
        raise UserError(f"parallel: unknown '{kind}' (known: {', '.join(_PARALLEL)})")
    choices = _PARALLEL[kind]
    for name, chosen in options.items():
        allowed = choices.get(name, ())
        is_number = allowed is _NUMBER and type(chosen) is int and chosen > 0
        if name != 'type' and chosen not in allowed and not is_number:
            known = ', '.join(f'{n}={"|".join(filter(None, v))}' for n, v in choices.items())
            raise UserError(
                f'parallel: {kind} takes {known or "nothing else"}; got {name}={chosen!r}'
            )
    return {**{name: values[0] for name, values in choices.items()}, **options}


def _accumulate(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise UserError(f'accumulate must be a whole number of iterations, got {value!r}')
    return value


def _bad_data(value: Any) -> dict[str, str]:
    policies = value if isinstance(value, dict) else dict.fromkeys(PARTS, value)
    if unknown := set(policies) - set(PARTS):
        raise UserError(f'bad_data has {sorted(unknown)}; its parts are {", ".join(PARTS)}')
    for policy in policies.values():
        if policy not in POLICIES:
            raise UserError(
                f"bad_data is {policy!r}; it can be 'raise' or 'skip', or one of them a part"
            )
    return {**dict.fromkeys(PARTS, 'raise'), **policies}


def _tta(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f'tta must be a dict(scales=..., flips=...), got {value!r}')
    if unknown := set(value) - {'scales', 'flips', 'nms'}:
        raise UserError(f'tta: unknown entries {", ".join(sorted(unknown))}')
    views = {}
    for name, is_single in (('scales', Real), ('flips', str)):
        if name in value:
            entries = [value[name]] if isinstance(value[name], is_single) else list(value[name])
            if not entries or len({str(entry) for entry in entries}) < len(entries):
                raise UserError(f'tta.{name} is empty or says one thing twice: {value[name]}')
            views[name] = entries
    for scale in views.get('scales', ()):
        if not _is_factor(scale) and not _is_pair(scale):
            raise UserError(
                f'tta.scales: {scale!r} is neither a factor of the test size nor a pair '
                '(width, height) in pixels; write [(1333, 800)] for one pair'
            )
    if wrong := [flip for flip in views.get('flips', ()) if flip not in FLIPS]:
        raise UserError(f'tta.flips: {wrong[0]!r} is none of {", ".join(FLIPS)}')
    return {**value, **views}


def _is_factor(scale: Any) -> bool:
    return isinstance(scale, Real) and scale is not True and 0 < scale <= _LARGEST_FACTOR


def _is_pair(scale: Any) -> bool:
    return (
        isinstance(scale, Sequence)
        and len(scale) == 2
        and all(isinstance(side, int) and side > 1 for side in scale)
    )


def _names(name: str, known: Sequence[str] | None = None) -> Callable[[Any], list[str]]:
    """Return a reader that takes one string or a list of strings."""

    def read(value: Any) -> list[str]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
            raise UserError(f'{name} must be a list of names, got {value!r}')
        for one in values if known is not None else ():
            if one not in known:
                raise UserError(f"{name}: unknown '{one}' (known: {', '.join(known)})")
        return list(values)

    return read


def _one_of(name: str, known: Sequence[Any]) -> Callable[[Any], Any]:
    """Return a reader that takes one of the known values."""

    def read(value: Any) -> Any:
        if value not in known or type(value) is not type(known[0]):
            raise UserError(f"{name}: unknown '{value}' (known: {', '.join(map(str, known))})")
        return value

    return read


def _path(name: str) -> Callable[[Any], str]:
    """Return a reader that takes the path of a file."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise UserError(f'{name} must be the path of a file, got {value!r}')
        return value

    return read


ENTRIES: dict[str, Entry] = {
    'parallel': Entry(
        'how several processes share the work: `ddp`, `zero1` or `fsdp`, or a dict '
        'with `type` ([scaling.md](scaling.md))',
        _parallel,
        {'type': 'ddp'},
    ),
    'accumulate': Entry(
        'gradient accumulation: iterations per update of the weights ([scaling.md](scaling.md))',
        _accumulate,
        1,
        takes_none=False,
    ),
    'precision': Entry(
        'mixed precision: `bf16`, or `fp16` with a scaled loss ([scaling.md](scaling.md))',
        _one_of('precision', PRECISIONS),
    ),
    'sync_bn': Entry(
        'turn BatchNorm into SyncBN for several processes: `torch` or `mmcv` (MMEngine)',
        _one_of('sync_bn', _SYNC_BN),
    ),
    'find_unused_parameters': Entry(
        'let DDP look for parameters that a forward pass leaves out (MMEngine)',
        _one_of('find_unused_parameters', (True, False)),
        False,
    ),
    'fresh_parameters': Entry(
        "parts of the model that `load_from` need not fill: `['roi_head.mask_head']`; `*` stands "
        'for one part of a name, `heads` for all that differs by the number of classes',
        _names('fresh_parameters'),
        [],
    ),
    'head_class_map': Entry(
        'file that says which class of a larger classification head each class is, a number per '
        'line, or `imagenet22k-to-1k` ([weights.md](weights.md))',
        _path('head_class_map'),
    ),
    'start_from': Entry(
        'weights to start from if `resume` finds no checkpoint; `tools/train.py --resume` sets it',
        _path('start_from'),
    ),
    'resume_with': Entry(
        'settings that a resumed training takes from the config and not from its checkpoint, any '
        'of `lr`, `schedule`, `weight_decay`, `optimizer` (its other settings), `seed`; '
        '`tools/train.py --resume-with` sets it ([fault_tolerance.md](fault_tolerance.md))',
        _names('resume_with', RESUMED),
        [],
    ),
    'bad_data': Entry(
        'what corrupt data does: `raise` or `skip`, or a dict with one of them for `train`, '
        '`val`, `test`, `infer` ([input.md](input.md))',
        _bad_data,
        dict.fromkeys(PARTS, 'raise'),
        takes_none=False,
    ),
    'tta': Entry(
        'test-time augmentation of `--tta`: a dict with `scales`, `flips` and perhaps `nms`',
        _tta,
    ),
    'hooks_off': Entry(
        'standard hooks to leave out, any of '
        + ', '.join(f'`{name}`' for name in STANDARD_HOOKS)
        + ' ([fault_tolerance.md](fault_tolerance.md))',
        _names('hooks_off', STANDARD_HOOKS),
        [],
    ),
    'log_to': Entry(
        'where scalars and validation images go beside the log file: any of '
        + ', '.join(f'`{name}`' for name in LOG_BACKENDS)
        + ' ([logging.md](logging.md))',
        _names('log_to', LOG_BACKENDS),
        [],
    ),
}
