"""Checkpoints of which there is always a whole one."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's hook, which deletes an old checkpoint only when the new one is complete.

    Takes the arguments of ``CheckpointHook``; MMEngine's own deletes first, so that with
    ``max_keep_ckpts=1`` an interrupted save leaves nothing.
    """

    def before_train(self, runner: Runner) -> None:
        """Forget checkpoints in other folders before a resumed run goes on.

        The best one so far is deleted when there is a better one, and its path comes from the
        checkpoint that is resumed: it may be from another work dir, or name any file or folder.
        """
        runtime = runner.message_hub.runtime_info
        folder = Path(self.out_dir or runner.work_dir).resolve()
        for key in [key for key in runtime if key.startswith('best_ckpt')]:
            if folder not in Path(str(runtime[key])).resolve().parents:
                runner.message_hub.pop_info(key)
        steps = runtime.get('keep_ckpt_ids', [])
        if not isinstance(steps, list) or not all(type(step) is int for step in steps):
            runner.message_hub.pop_info('keep_ckpt_ids')
        super().before_train(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        keep, expired = self.max_keep_ckpts, None
        if keep > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == keep:
                expired = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            # Part of what is saved: a resumed run goes on to count from here.
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.max_keep_ckpts = -1
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.max_keep_ckpts = keep
        if expired is not None and is_main_process():
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(expired))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)


def newest_first(work_dir: str) -> list[Path]:
    """List the checkpoints in a folder: the one that was saved last comes first."""
    files = [path for path in Path(work_dir).glob('*.pth') if not path.name.startswith('.')]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
