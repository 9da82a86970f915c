"""Access the private names of MMEngine and the libraries on it, in one place.

``PRIVATE_NAMES`` lists them, and a test asserts that the installed versions have each. No library
but MMEngine is imported for it. It stands below ``engine``, since ``ops`` and ``tta`` need it too.
"""

from __future__ import annotations

from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch import Tensor, nn

# Owner, or its dotted name, and the name of what is used of it. Attributes of an instance are
# those that its class sets.
PRIVATE_NAMES: tuple[tuple[object, str], ...] = (
    (Runner, '_has_loaded'),
    (Runner, '_hooks'),
    (Runner, '_load_from'),
    (Runner, '_resume'),
    (Runner, '_train_loop'),
    # Overridden, or called by what overrides another.
    (Runner, '_init_model_weights'),
    (Runner, '_log_env'),
    (CheckpointHook, '_save_best_checkpoint'),
    (CheckpointHook, '_save_checkpoint_with_step'),
    ('mmengine.dataset:InfiniteSampler', '_infinite_indices'),
    (IterBasedTrainLoop, '_decide_current_val_interval'),
    (MMLogger, '_instance_dict'),
    (OptimWrapper, '_accumulative_counts'),
    (OptimWrapper, '_inner_count'),
    (BaseModel, '_run_forward'),
    ('mmdet.models.roi_heads:StandardRoIHead', '_mask_forward'),
    ('mmdet.models.roi_heads:CascadeRoIHead', '_mask_forward'),
    ('mmdet.models.roi_heads:HybridTaskCascadeRoIHead', '_mask_forward'),
)


def is_resuming(runner: Runner) -> bool:
    """Whether a run continues an earlier one."""
    return runner._resume


def is_training(runner: Runner) -> bool:
    """Whether a run trains: its loop is built before its weights are loaded."""
    return isinstance(runner._train_loop, BaseLoop)


def update_val_interval(loop: BaseLoop) -> None:
    """Set the interval of validation that holds at the iteration where a loop is."""
    loop._decide_current_val_interval()


def loss_terms(model: BaseModel, data: dict) -> dict[str, Any]:
    """Return the losses of a batch as it comes from the data loader, each by its name."""
    return model._run_forward(model.data_preprocessor(data, True), mode='loss')


def mask_logits(head: nn.Module, *args: Any, **kwargs: Any) -> Tensor | list[Tensor]:
    """Return the mask logits of an RoI head of mmdet; its arguments differ by the class."""
    return head._mask_forward(*args, **kwargs)['mask_preds']


def accumulation(wrapper: OptimWrapper) -> int:
    """Return how many iterations make an update of the weights."""
    # A wrapper of several optimizers has none.
    return getattr(wrapper, '_accumulative_counts', 1)


def has_logger() -> bool:
    """Whether a run has made its logger."""
    return bool(MMLogger._instance_dict)
