"""Log scalars to TensorBoard, MLflow or W&B: ``log_to = ['tensorboard']`` in a config."""

from __future__ import annotations

import importlib
import os

from mmengine.config import Config

from swinv2_mm.config.entries import read_entry
from swinv2_mm.errors import UserError


def _backends(work_dir: str) -> dict[str, dict]:
    return {
        'tensorboard': dict(type='TensorboardVisBackend'),
        # Without a server: MLflow no longer writes plain files, MMEngine's default.
        'mlflow': dict(
            type='MLflowVisBackend',
            # Not MLflow's own default, which keeps files in the folder of the command.
            exp_name='swinv2_mm',
            tracking_uri=os.environ.get(
                'MLFLOW_TRACKING_URI', f'sqlite:///{os.path.abspath(work_dir)}/mlflow.db'
            ),
            artifact_location=os.path.join(os.path.abspath(work_dir), 'mlflow'),
            tracked_config_keys=['randomness', 'train_cfg'],
        ),
        # To be sent later by `wandb sync`, unless the environment says otherwise.
        'wandb': dict(
            type='WandbVisBackend',
            init_kwargs=dict(mode=os.environ.get('WANDB_MODE', 'offline'), project='swinv2_mm'),
        ),
    }


def add_log_backends(cfg: Config) -> None:
    """Add MMEngine's visualisation backend of every name in ``cfg.log_to``.

    Raises:
        UserError: If a name is unknown or its package does not import.
    """
    backends = _backends(cfg.get('work_dir') or '.')
    for name in read_entry(cfg, 'log_to'):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"log_to: '{name}' needs: pip install {name} ({error})") from error
        cfg.visualizer.vis_backends = [*cfg.visualizer.vis_backends, backends[name]]
