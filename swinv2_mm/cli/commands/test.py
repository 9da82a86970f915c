"""Evaluate a trained model on the test set of a config, and draw or keep its predictions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import (
    FOLDERS,
    WEIGHTS,
    add_cfg_options,
    add_config,
    add_launcher,
    add_trust,
    add_work_dir,
    call,
    new_parser,
    parse_windows,
    run_command,
)
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def test(
    cfg: str | Path | Config,
    weights: str | Path | None = None,
    *,
    tta: bool = False,
    window_size: int | Sequence | None = None,
    out: str | Path | Sequence[str | Path] = (),
    format_only: bool = False,
    show_dir: str | Path | None = None,
    work_dir: str | Path | None = None,
    options: Sequence[str] = (),
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluate a model on the test set of a config.

    Args:
        cfg: A config file, or a config, which is not modified; or a file that ``export`` wrote,
            which holds its own.
        weights: A file, a URL, the name of a released model, or an exported file.
        tta: Whether to merge several scales and flips, by the config entry ``tta``.
        window_size: Another window than the config's, in tokens: one for all stages or one per
            stage, each N or (h, w).
        out: Files to write: ``.json`` receives the metrics, ``.npz`` the predictions.
        format_only: Whether to evaluate nothing, but to write the files that an evaluation server
            takes, to the folder ``submission`` of the work dir.
        show_dir: Folder that receives the images with predictions drawn.
        work_dir: Folder for logs; default ``work_dirs/NAME_OF_THE_CONFIG``.
        options: Overrides of config entries, as ``key=value``.
        launcher: How the processes of a distributed job were started: ``none``, ``pytorch``,
            ``slurm`` or ``mpi``.

    Returns:
        The metrics.

    Raises:
        UserError: If the config, the data or the weights do not fit what is asked.
    """
    outputs = _checked_outputs(out, format_only=format_only)
    folders = [path.parent for paths in outputs.values() for path in paths]
    for folder in folders if show_dir is None else [*folders, Path(show_dir)]:
        if not next(path for path in (folder, *folder.parents) if path.exists()).is_dir():
            raise UserError(f'{folder} leads through a file: name a folder (--out, --show-dir)')
    from mmengine.dist import is_main_process
    from mmengine.hooks import PrepareTTAHook

    # First: it puts the stand-in for mmcv's compiled ops in place.
    import swinv2_mm.models
    import swinv2_mm.tta.model  # noqa: F401
    from swinv2_mm.atomic_write import atomic_write
    from swinv2_mm.checkpoint.reading import check_source
    from swinv2_mm.config.datasets import check_data, image_folders
    from swinv2_mm.config.file import as_config
    from swinv2_mm.config.options import apply_options
    from swinv2_mm.config.values import check_values
    from swinv2_mm.core.unwrapping import unwrapped
    from swinv2_mm.data_check.guard import guard_data
    from swinv2_mm.engine.config_errors import config_errors
    from swinv2_mm.engine.drawings import name_drawings
    from swinv2_mm.engine.launch import build_runner, default_work_dir
    from swinv2_mm.engine.preflight import check_metrics
    from swinv2_mm.engine.submission import write_submission_only
    from swinv2_mm.engine.trained_model import set_window_size
    from swinv2_mm.inference.drawing import drawing_of
    from swinv2_mm.runtime.files import is_exported
    from swinv2_mm.runtime.metadata import config_in
    from swinv2_mm.runtime.model import FileModel
    from swinv2_mm.tta.views import complete_tta, split_test_pipeline

    if weights is None:
        if not isinstance(cfg, (str, Path)):
            raise UserError('weights: name the checkpoint of this config')
        weights, cfg = cfg, config_in(cfg)
        work_dir = work_dir or f'work_dirs/{Path(weights).stem}'
    is_file = is_exported(weights)
    if is_file and (tta or window_size is not None):
        raise UserError(f'{weights}: its windows and its views are fixed in an exported file')
    cfg = as_config(cfg)
    if tta:
        # Before the options: they may change any entry of it.
        complete_tta(cfg)
    apply_options(cfg, options)
    weights = str(weights)
    if not is_file:
        check_source(weights)
    cfg.load_from, cfg.resume = None if is_file else weights, False
    submission = Path(work_dir or default_work_dir(cfg)) / 'submission'
    if format_only:
        write_submission_only(cfg, submission)
    for path in outputs['.npz']:
        _keep_predictions(cfg, path)
    check_values(cfg, ['test_dataloader'])
    check_data(cfg, ['test_dataloader'])
    if show_dir is not None:
        _draw_predictions(cfg, Path(show_dir))
    hooks = []
    if tta:
        model = dict(type='MultiViewModel', scope=cfg.default_scope, nms=cfg.tta.get('nms'))
        hooks = [PrepareTTAHook(dict(model, views=split_test_pipeline(cfg)))]
    runner = build_runner(cfg, work_dir=work_dir, launcher=launcher)
    if is_file:
        runner.model = FileModel(weights, model=unwrapped(runner.model))
    if show_dir is not None:
        folders = image_folders(cfg, 'test_dataloader')
        name_drawings(
            runner.visualizer,
            folder=Path(show_dir),
            roots=folders,
            paths=lambda: _image_paths(runner),
            draw=drawing_of(runner, loader='test'),
        )
    guard_data(runner, ['test'])
    for hook in hooks:
        runner.register_hook(hook)
    if window_size is not None:
        set_window_size(runner.model, window_size)
    with config_errors(cfg):
        if not tta:
            check_metrics(runner, cfg, 'test')
        metrics = runner.test()
    if is_main_process():
        result = {'config': str(cfg.filename), 'checkpoint': weights, 'metrics': metrics}
        for path in outputs['.json']:
            atomic_write(path, json.dumps(result, indent=2, default=float) + '\n')
        if format_only:
            files = sorted(path for path in submission.rglob('*') if path.is_file())
            few = ', '.join(map(str, files))
            print(f'submission files: {few if len(files) < 5 else f"{len(files)} in {submission}"}')
    return metrics


def _checked_outputs(
    out: str | Path | Sequence[str | Path], *, format_only: bool
) -> dict[str, list[Path]]:
    """Refuse before the test what could not be written after it; returns files by suffix."""
    found: dict[str, list[Path]] = {'.json': [], '.npz': []}
    for path in map(Path, [out] if isinstance(out, (str, Path)) else out):
        if path.suffix not in found:
            raise UserError(f'--out {path}: must end in .json (metrics) or .npz (predictions)')
        if path.suffix == '.json' and format_only:
            raise UserError(f'--out {path}: with --format-only there are no metrics')
        found[path.suffix].append(path)
    return found


def _draw_predictions(cfg: Config, folder: Path) -> None:
    """Have every test image written to ``folder`` with its prediction."""
    from swinv2_mm.libraries import library_of

    library = library_of(cfg, purpose='--show-dir')
    hook = dict(library.drawing_hook)
    if library.drawing_folder is not None:
        hook[library.drawing_folder] = str(folder.absolute())
    cfg.visualizer.save_dir = str(folder)
    hooks = cfg.setdefault('default_hooks', {})
    hooks['visualization'] = {**hooks.get('visualization', {}), **hook}


def _image_paths(runner: Runner) -> Iterator[str]:
    dataset = runner.test_dataloader.dataset
    return (dataset.get_data_info(index)['img_path'] for index in range(len(dataset)))


def _keep_predictions(cfg: Config, path: Path) -> None:
    """Have the predictions of the whole test set written to ``path``."""
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [dict(type='PredictionFile', path=str(path)), *metrics]


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s CONFIG work_dirs/NAME/iter_900.pth --show-dir visualizations
        %(prog)s CONFIG CKPT --tta --cfg-options tta.scales=[0.75,1.0]
        %(prog)s CONFIG CKPT --window-size 16 --out scores.json --out predictions.npz
        %(prog)s CONFIG swinv2-tiny-w8-256_in1k
        %(prog)s model.onnx
        tools/dist_test.sh CONFIG CKPT 8
        """,
    )
    add_config(parser)
    parser.add_argument(
        'weights',
        nargs='?',
        metavar='checkpoint',
        help='weights: a file, a URL, the name of a released model, or an exported file, which '
        'needs no config',
    ).completer = WEIGHTS
    add_work_dir(parser)
    add_cfg_options(parser)
    how = parser.add_argument_group('how to test')
    how.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: merge several scales and flips, those of the config entry '
        'tta (without one, of configs/_base_/tta/TASK.py)',
    )
    how.add_argument(
        '--window-size',
        type=parse_windows,
        metavar='N[,N...]',
        help='evaluate at another window, in tokens: one for all stages or one per stage, '
        'each N or HxW',
    )
    add_launcher(how)
    add_trust(how)
    output = parser.add_argument_group('what to write')
    output.add_argument(
        '--out',
        type=Path,
        action='append',
        default=[],
        metavar='FILE',
        help='FILE.json: write the metrics; FILE.npz: write the predictions; may be repeated',
    )
    output.add_argument(
        '--format-only',
        action='store_true',
        help='evaluate nothing, but write the files that an evaluation server takes, '
        'to WORK_DIR/submission',
    )
    output.add_argument(
        '--show-dir',
        type=Path,
        metavar='FOLDER',
        help='write visualizations of the predictions',
    ).completer = FOLDERS
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(
        build_parser(),
        argv,
        lambda args: call(test, args),
        is_intermixed=True,
        runs_model=True,
    )
