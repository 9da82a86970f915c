"""Load a weights file of any layout into a whole model: the only place that does."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from swinv2_mm.checkpoint import LoadReport, load_pretrained
from swinv2_mm.checkpoint.fitting import misfits
from swinv2_mm.checkpoint.layouts import WINDOWS_BUFFER
from swinv2_mm.checkpoint.load_report import shortened
from swinv2_mm.checkpoint.loading import find_backbone
from swinv2_mm.checkpoint.reading import Weights
from swinv2_mm.config.entries import HEADS
from swinv2_mm.core.numerics import NUMERICS_ENTRY
from swinv2_mm.errors import UserError

from .class_heads import ClassHeads, find_class_heads

# MMEngine's default: the prefix of a model in DistributedDataParallel.
_REVISE_KEYS = ((r'^module\.', ''),)


def fill_model(
    model: nn.Module,
    weights: Weights,
    *,
    is_start: bool = False,
    is_resumed: bool = False,
    fresh: Iterable[str] = (),
    class_map: str | os.PathLike | None = None,
    revise_keys: Sequence[tuple[str, str]] = _REVISE_KEYS,
    prepare: Callable[[dict], object] = lambda _: None,
) -> LoadReport:
    """Fill a whole model with the weights of a file, strictly.

    Weights of a model of this project are matched name by name; those of any other layout go
    through ``load_pretrained``, into the backbone and, if it fits, a classification head.

    Args:
        model: Unwrapped.
        weights: What ``open_weights`` returned, or a training checkpoint.
        is_start: Whether a training starts from the weights, so that parts may keep their initial
            values. A model that is tested or resumed is trained: none of its parts is fresh.
        is_resumed: Whether a training goes on, so that the weights are ours.
        fresh: At the start, beginnings of names that keep their initial values, such as
            ``roi_head.mask_head``; ``*`` stands for one part of a name, and ``heads`` for what
            differs by the number of classes.
        class_map: See ``load_pretrained``; for a start, or weights of another layout.
        revise_keys: Pattern and replacement for names, as MMEngine takes them.
        prepare: Called with the whole checkpoint before it is copied: EMAHook puts back the
            weights that are trained, in place of their average.

    Raises:
        UserError: If the weights do not fit or fill the model, or are not finite. It is unchanged
            then.
    """
    is_foreign = not is_resumed and _is_foreign(_revised(weights.content, revise_keys), model)
    if is_foreign or (is_start and class_map is not None):
        report = load_pretrained(model, weights, class_map=class_map)
        idle = _unfilled(model, report)
        if idle and not is_start:
            raise UserError(
                f'{weights.origin} has no weights for {shortened(list(idle))}: only a trained '
                'model of this config can be used'
            )
        return replace(report, missing=idle)
    prepare(weights.content)
    state_dict = _revised(weights.content, revise_keys)
    own = model.state_dict()
    kept = _matching_names(own, set(fresh) - {HEADS}) if is_start else set()
    missing = dict.fromkeys(sorted(kept), 'fresh_parameters')
    heads = find_class_heads({k: v for k, v in state_dict.items() if k not in kept}, model)
    if is_start and HEADS in fresh and heads is not None:
        reason = f'{heads.num_saved} classes in the weights, {heads.num_wanted} in the model'
        missing |= dict.fromkeys(heads.names, reason)
        kept |= set(heads.names)
    state_dict = {k: v for k, v in state_dict.items() if k not in kept}
    # The entry for the numerics is not a parameter: the backbone reads it from the weights.
    wanted = {k: v.shape for k, v in own.items() if k not in kept}
    problems = misfits(_without_numerics(state_dict), _without_numerics(wanted))
    if problems:
        raise UserError(
            f'checkpoint {weights.origin} does not fit the model of this config: '
            f'{"; ".join(problems)}. {_remedy(heads)}'
        )
    _check_finite({k: v for k, v in state_dict.items() if k in own}, origin=weights.origin)
    model.load_state_dict(state_dict | {name: own[name] for name in kept})
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    loaded = tuple(name for name in state_dict if name in parameters)
    return LoadReport(layout='own', loaded=loaded, missing=missing)


def _check_finite(state_dict: Mapping[str, Any], *, origin: str) -> None:
    """Refuse weights of a training that has diverged; shards are not looked at."""
    whole = {k: v for k, v in state_dict.items() if type(v) in (torch.Tensor, nn.Parameter)}
    bad = [k for k, v in whole.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise UserError(
            f'checkpoint {origin} holds NaN or infinite values, in {shortened(bad)}: the training '
            'has diverged before it was saved; take an earlier checkpoint'
        )


def _without_numerics(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in entries.items() if k.rpartition('.')[2] != NUMERICS_ENTRY}


def _remedy(heads: ClassHeads | None) -> str:
    if heads is None:
        return 'To train on with parts of it, name the others in fresh_parameters'
    return (
        f'The weights have {heads.num_saved} classes, the model {heads.num_wanted}: to train on, '
        f"set fresh_parameters='{HEADS}', and what depends on the classes starts anew: "
        f'{", ".join(heads.names)}'
    )


def _unfilled(model: nn.Module, report: LoadReport) -> dict[str, str]:
    """Return the parameters of a whole model that nothing was loaded into, with the reason."""
    backbone = find_backbone(model)
    place = next(name for name, module in model.named_modules() if module is backbone)
    loaded = {*report.loaded, *(f'{place}.{name}' for name in report.loaded)}
    reasons = {f'{place}.{name}': reason for name, reason in report.missing.items()}
    reasons |= report.missing
    names = [name for name, _ in model.named_parameters() if name not in loaded]
    return {name: reasons.get(name, 'not in the weights') for name in names}


def _revised(checkpoint: dict, revise_keys: Sequence[tuple[str, str]]) -> dict:
    state_dict = checkpoint.get('state_dict')
    state_dict = state_dict if isinstance(state_dict, dict) else checkpoint
    for pattern, replacement in revise_keys:
        state_dict = {re.sub(pattern, replacement, k): v for k, v in state_dict.items()}
    return state_dict


def _is_foreign(state_dict: dict, model: nn.Module) -> bool:
    """Whether weights are not those of a whole model of this project."""
    buffers = [name for name in model.state_dict() if name.endswith(WINDOWS_BUFFER)]
    return bool(buffers) and not any(name in state_dict for name in buffers)


def _matching_names(names: Iterable[str], starts: Iterable[str]) -> set[str]:
    """Return the names that begin with one of ``starts``, of which each must match something."""
    found = set()
    for start in starts:
        pattern = re.escape(start).replace(r'\*', r'[^.]+') + r'(\..+)?'
        matching = {name for name in names if re.fullmatch(pattern, name)}
        if not matching:
            raise UserError(f"fresh_parameters: the model has nothing called '{start}'")
        found |= matching
    return found
