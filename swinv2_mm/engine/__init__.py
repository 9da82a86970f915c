"""Train and test: Runner, hooks, samplers, loops, optimizer wrappers and sharding."""

from .checkpoint_hook import SafeCheckpointHook
from .epoch_loop import ResumableEpochLoop
from .non_finite import NonFiniteHook
from .optimizer import SwinV2OptimWrapperConstructor
from .optimizer_state import OptimizerStateHook
from .precision import Bfloat16OptimWrapper
from .prediction_file import PredictionFile
from .preemption import PreemptionHook
from .seeding import (
    IterationSeedHook,
    SeedAugmentation,
    SeededInfiniteSampler,
    SeededRepeatSampler,
    SeededSampler,
)
from .throughput import ThroughputHook

__all__ = [
    'Bfloat16OptimWrapper',
    'IterationSeedHook',
    'NonFiniteHook',
    'OptimizerStateHook',
    'PredictionFile',
    'PreemptionHook',
    'ResumableEpochLoop',
    'SafeCheckpointHook',
    'SeedAugmentation',
    'SeededInfiniteSampler',
    'SeededRepeatSampler',
    'SeededSampler',
    'SwinV2OptimWrapperConstructor',
    'ThroughputHook',
]
