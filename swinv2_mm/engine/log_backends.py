"""Log scalars and images to TensorBoard and other backends: ``log_to = ['tensorboard']``."""

from __future__ import annotations

import importlib
import os

from mmengine.config import Config

from swinv2_mm.config.entries import read_entry
from swinv2_mm.errors import UserError


def _backends(work_dir: str) -> dict[str, dict]:
    return {
        'tensorboard': dict(type='TensorboardVisBackend'),
        # A local database: MLflow no longer writes plain files, which are MMEngine's default.
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
        'aim': dict(
            type='AimVisBackend',
            init_kwargs=dict(
                repo=os.environ.get('AIM_REPO', os.path.abspath(work_dir)),
                experiment=os.path.basename(os.path.abspath(work_dir)),
            ),
        ),
        # Files in a folder of its own, to be imported later, unless the environment says otherwise.
        'clearml': dict(
            type='ClearMLVisBackend',
            init_kwargs=dict(
                project_name='swinv2_mm',
                task_name=os.path.basename(os.path.abspath(work_dir)),
                # ClearML would record calls of torch.save and the command line as well.
                auto_connect_frameworks=False,
                auto_connect_arg_parser=False,
            ),
        ),
    }


def add_log_backends(cfg: Config) -> None:
    """Add MMEngine's visualisation backend of every name in ``cfg.log_to``.

    Raises:
        UserError: If a name is unknown or its package does not import.
    """
    backends = _backends(cfg.get('work_dir') or '.')
    for name in read_entry(cfg, 'log_to'):
        if name == 'clearml':
            os.environ.setdefault('CLEARML_OFFLINE_MODE', '1')
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"log_to: '{name}' needs: pip install {name} ({error})") from error
        cfg.visualizer.vis_backends = [*cfg.visualizer.vis_backends, backends[name]]
