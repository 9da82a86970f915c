"""Add the hooks that every run has, whatever lists of hooks a config replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS

from swinv2_mm.config.entries import STANDARD_HOOKS, read_entry

from .checkpoint_hook import SafeCheckpointHook

_SAFE = SafeCheckpointHook.__name__
_PREEMPTION = 'PreemptionHook'


@dataclass(frozen=True)
class HookPlan:
    """The hooks of a run.

    Attributes:
        default: ``default_hooks``, with checkpoints saved by ``SafeCheckpointHook``.
        custom: ``custom_hooks``, after those of ``STANDARD_HOOKS`` that they do not configure.
        summary: A line for the log: which are on, with their settings, and which are off.
    """

    default: dict[str, Any]
    custom: list[Any]
    summary: str


def plan_hooks(
    cfg: Mapping[str, Any], *, default_hooks: Mapping[str, Any] | None, custom_hooks: Any
) -> HookPlan:
    """Complete the hooks of a config.

    An entry of ``custom_hooks`` configures the standard hook of its class, or of a base class;
    ``hooks_off`` leaves one out. MMEngine's ``CheckpointHook`` becomes ``SafeCheckpointHook``,
    which takes the same arguments.

    Args:
        cfg: The whole config.
        default_hooks: Default hooks of the config, by name; ``None`` switches one off.
        custom_hooks: Custom hooks of the config.
    """
    default, custom = dict(default_hooks or {}), list(custom_hooks or ())
    saver = default.get('checkpoint', {'type': 'CheckpointHook', 'interval': 1})
    replaced = _class_of(saver) is CheckpointHook and not isinstance(saver, Hook)
    if replaced:
        default['checkpoint'] = saver = {**saver, 'type': _SAFE}
    off = {name: 'hooks_off' for name in read_entry(cfg, 'hooks_off')}
    is_safe = _is_a(saver, SafeCheckpointHook)
    if not is_safe:
        off.setdefault(_PREEMPTION, f'default_hooks.checkpoint is no {_SAFE}')
    added, shown = [], []
    for name in STANDARD_HOOKS:
        own = [hook for hook in custom if _is_a(hook, HOOKS.get(name))]
        if own:
            off.pop(name, None)
            shown.append(_shown(own[0]))
        elif name not in off:
            added.append({'type': name})
            shown.append(name)
    if is_safe:
        shown.append(f'{_SAFE} in place of CheckpointHook' if replaced else _SAFE)
    summary = f'Standard hooks: {", ".join(shown) or "none"}'
    if off:
        summary += f'; off: {", ".join(f"{name} ({reason})" for name, reason in off.items())}'
    return HookPlan(default, [*added, *custom], summary)


def _class_of(hook: Any) -> type | None:
    if isinstance(hook, Hook):
        return type(hook)
    kind = hook.get('type') if isinstance(hook, Mapping) else None
    return HOOKS.get(kind) if isinstance(kind, str) else kind


def _is_a(hook: Any, base: type) -> bool:
    cls = _class_of(hook)
    return isinstance(cls, type) and issubclass(cls, base)


def _shown(hook: Hook | Mapping[str, Any]) -> str:
    if isinstance(hook, Hook):
        return type(hook).__name__
    settings: Sequence[str] = [f'{key}={value}' for key, value in hook.items() if key != 'type']
    name = getattr(hook['type'], '__name__', hook['type'])
    return f'{name} ({", ".join(settings)})' if settings else name
