"""Compare the settings of a training with those that a checkpoint was saved with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swinv2_mm.config.text import parse_config_text
from swinv2_mm.errors import UserError

# Entries that decide the result of a training; the others are of the run: folders, logs, workers.
_ROOTS = (
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'randomness',
    'auto_scale_lr',
    'accumulate',
    'precision',
    'sync_bn',
    'custom_hooks',
    'hooks_off',
    'train_dataloader',
    'model',
)
_OF_THE_RUN = {
    'num_workers',
    'persistent_workers',
    'prefetch_factor',
    'pin_memory',
    'timeout',
    'init_cfg',
    'val_interval',
}
# What the state in a checkpoint brings with it: the start of a key, and the name that
# ``resume_with`` has for it. The first that fits.
_OF_THE_STATE = {
    'optim_wrapper.optimizer.lr': 'lr',
    'optim_wrapper.paramwise_cfg': 'lr',
    'auto_scale_lr': 'lr',
    'optim_wrapper.optimizer.weight_decay': 'weight_decay',
    'optim_wrapper.optimizer': 'optimizer',
    'param_scheduler': 'schedule',
    'randomness.seed': 'seed',
}
_NOT_SET = 'not set'
_MOST_LINES = 20
_LONGEST = 80


@dataclass(frozen=True)
class Difference:
    """A setting that differs.

    Attributes:
        key: Such as ``optim_wrapper.optimizer.lr``.
        saved: What it was for the checkpoint, as text.
        configured: What it is in the config, as text.
        name: What ``resume_with`` calls it; ``None`` if it is not part of a checkpoint's state.
    """

    key: str
    saved: str
    configured: str
    name: str | None


def saved_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the training that saved a checkpoint, as far as it can be read."""
    meta = checkpoint.get('meta')
    return parse_config_text(meta.get('cfg')) if isinstance(meta, Mapping) else {}


def compare_settings(saved: Mapping[str, Any], configured: Mapping[str, Any]) -> list[Difference]:
    """List the settings of a training that differ, those of the checkpoint's state first.

    Args:
        saved: What ``saved_settings`` returned; nothing is compared with an empty one.
        configured: The config that is resumed with, read in the same way.
    """
    if not saved:
        return []
    one, other = (dict(_leaves(settings)) for settings in (saved, configured))
    found = [
        Difference(key, _shown(one, key), _shown(other, key), _name_of(key))
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    ]
    return sorted(found, key=lambda difference: difference.name is None)


def explain_differences(found: Sequence[Difference], *, taken: Sequence[str]) -> list[str]:
    """Write a line for each setting that differs: both values, and which one holds.

    Args:
        found: What ``compare_settings`` returned.
        taken: Names of ``resume_with``.
    """
    lines = []
    for difference in found:
        name = difference.name
        if name is None:
            which = "the config's holds"
        elif name in taken:
            which = f"the config's holds (resume_with {name})"
        else:
            which = f"the checkpoint's holds; --resume-with {name} takes the config's"
        lines.append(
            f'resumed with another setting: {difference.key} was {difference.saved} and is '
            f'{difference.configured} in the config: {which}'
        )
    if len(lines) > _MOST_LINES:
        num_more = len(lines) - _MOST_LINES
        lines = [*lines[:_MOST_LINES], f'... and {num_more} more settings: the config holds']
    return lines


def check_same_optimizer(saved: Mapping[str, Any], configured: Mapping[str, Any]) -> None:
    """Refuse the state of another class of optimizer.

    Raises:
        UserError: If the classes differ.
    """
    kinds = []
    for settings in (saved, configured):
        optimizer = (settings.get('optim_wrapper') or {}).get('optimizer') or {}
        kinds.append(optimizer.get('optimizer_type', optimizer.get('type')))
    if None not in kinds and kinds[0] != kinds[1]:
        raise UserError(
            f'the checkpoint has the state of {kinds[0]}, and optim_wrapper.optimizer.type is '
            f'{kinds[1]}: resume with {kinds[0]}, or start anew from the weights with load_from'
        )


def _leaves(node: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """List the settings below a node, each by its dotted key."""
    if key == 'custom_hooks' and isinstance(node, (list, tuple)):
        # By name: their order says little.
        for hook in node:
            if isinstance(hook, Mapping):
                yield from _leaves(dict(hook), f'{key}.{hook.get("type")}')
    elif isinstance(node, Mapping):
        for name, value in node.items():
            if not key and name not in _ROOTS:
                continue
            if name not in _OF_THE_RUN:
                yield from _leaves(value, f'{key}.{name}' if key else str(name))
    elif isinstance(node, (list, tuple)) and any(isinstance(part, Mapping) for part in node):
        for number, part in enumerate(node):
            yield from _leaves(part, f'{key}.{number}')
    elif node is not None:
        # A tuple of a config may be a list in its text.
        yield key, list(node) if isinstance(node, tuple) else node


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    if key not in leaves:
        return _NOT_SET
    text = repr(leaves[key])
    return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'


def _name_of(key: str) -> str | None:
    if key.endswith('decay_mult'):
        return 'weight_decay'
    for start, name in _OF_THE_STATE.items():
        if key == start or key.startswith(f'{start}.'):
            return name
    return None
