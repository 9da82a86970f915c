"""The code blocks of the documentation, and a folder like the repository to run them in."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from conftest import ROOT
from mmengine.config import Config

FENCE = re.compile(r'```(\w*)\s*$')
NOT_RUN = re.compile(r'<!-- not run: (.+?) -->$')
LANGUAGES = ('shell', 'python')
PARTS = (
    'benchmarks',
    'configs',
    'dev',
    'docs',
    'projects',
    'requirements',
    'swinv2_mm',
    'tests',
    'tools',
)

# What stands for the reader's own files, and what it is here.
PLACEHOLDERS = {
    'CONFIG': 'configs/classification/swinv2-nano-w8_digits.py',
    'CKPT': 'work_dirs/digits/iter_2.pth',
    'OTHER': 'work_dirs/digits/iter_1.pth',
    'WORK_DIR': 'work_dirs/digits',
    'OTHER_WORK_DIR': 'work_dirs/digits_again',
    'FOLDER': 'photographs',
    'IMAGE': 'photographs/1.png',
}
# Added to the commands of a tool, after the options they have.
ADDED = {
    'tools/quickstart.py': '--images 8 --iterations 2',
    'window_transfer/tools/compare.py': '--epochs 1 --fine-tune-epochs 1 --pairs 32/4 64/8',
}
# A training of minutes or days becomes one of these lengths.
SHORT = {
    'IterBasedTrainLoop': [
        'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2',
        'default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1',
    ],
    'EpochBasedTrainLoop': [
        'train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
        'default_hooks.checkpoint.interval=1', 'default_hooks.logger.interval=1',
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block of commands or of Python, or a cell of a notebook."""

    document: str
    line: int
    language: str
    text: str
    not_run: str | None = None

    def __str__(self) -> str:
        return f'{self.document}:{self.line}'

    def commands(self) -> list[str]:
        """The lines of a shell block, continued ones joined, without comments."""
        joined = re.sub(r'\\\n\s*', '', self.text)
        lines = (re.sub(r'(^|\s)#.*', '', line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def documents() -> list[Path]:
    """All of them, from the project's root."""
    found = [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('docs/tutorials/*.ipynb')]
    found += ROOT.glob('projects/*/README.md')
    return sorted(path.relative_to(ROOT) for path in found)


def blocks_of(document: Path) -> list[Block]:
    """The blocks that a reader would run, in order."""
    text = (ROOT / document).read_text(encoding='utf-8')
    if document.suffix == '.ipynb':
        cells = [c for c in json.loads(text)['cells'] if c['cell_type'] == 'code']
        return [
            Block(str(document), number, 'python', ''.join(cell['source']))
            for number, cell in enumerate(cells, 1)
        ]
    blocks, inside, before = [], None, ''
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line.strip())
        if inside is not None:
            if fence:
                if inside['language'] in LANGUAGES:
                    body = '\n'.join(inside['lines']) + '\n'
                    blocks.append(
                        Block(
                            str(document), inside['line'], inside['language'], body, inside['why']
                        )
                    )
                inside, before = None, ''
            else:
                inside['lines'].append(line)
        elif fence:
            why = NOT_RUN.match(before)
            why = why[1] if why else None
            inside = {'language': fence[1], 'line': number, 'lines': [], 'why': why}
        elif line.strip():
            before = line.strip()
    assert inside is None, f'{document}: the block of line {inside["line"]} has no end'
    return blocks


@dataclass
class Workplace:
    """A folder like the repository, in which the blocks of one document run in order.

    Attributes:
        root: The folder.
        data: What SWINV2_DATA names.
        rewritten: Commands that were made quick, as they ran.
    """

    root: Path
    data: Path
    rewritten: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for part in PARTS:
            if (ROOT / part).exists():
                skipped = shutil.ignore_patterns('__pycache__')
                shutil.copytree(ROOT / part, self.root / part, ignore=skipped)
        for file in ('setup.py', 'README.md', 'pyproject.toml'):
            shutil.copy(ROOT / file, self.root)
        # `python` is the interpreter of the tests.
        self.environment = {
            **os.environ,
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'PYTHONPATH': str(self.root),
            'SWINV2_DATA': str(self.data),
            'OMP_NUM_THREADS': '1',
        }

    def prepared(self, command: str) -> str:
        """A command as it runs here: files that exist for placeholders, short trainings."""
        plain = changed = with_files(command)
        for tool, options in ADDED.items():
            if tool in changed and ' --help' not in changed:
                changed = f'{changed} {options}'
        if (
            re.search(r'(tools/(train\.py|dist_train\.sh)|swinv2-mm train) ', changed)
            and ' --help' not in changed
        ):
            changed = self._shortened(changed)
        if changed != plain:
            self.rewritten.append(changed)
        return changed

    def _shortened(self, command: str) -> str:
        words = shlex.split(command)
        name = next(word for word in words if word.endswith('.py') and 'tools/' not in word)
        if re.search(r'train_cfg\.max_(iters|epochs)=', command):
            return command
        train_cfg = Config.fromfile(self.root / name, import_custom_modules=False).train_cfg
        options = ' '.join(SHORT[train_cfg.type])
        if '--cfg-options' in command:
            command = command.replace('--cfg-options', f'--cfg-options {options}')
        else:
            command += f' --cfg-options {options}'
        # The checkpoint also gets the name that the whole training would give it.
        folder = f'work_dirs/{Path(name).stem}'
        if '--work-dir' in words:
            folder = words[words.index('--work-dir') + 1]
        last = f'iter_{train_cfg.max_iters}' if 'max_iters' in train_cfg else None
        last = last or f'epoch_{train_cfg.max_epochs}'
        return f'{command} && cp "$(cat {folder}/last_checkpoint)" {folder}/{last}.pth'

    def run_shell(self, block: Block) -> int:
        """Run a block as bash does; returns the number of commands.

        Raises:
            AssertionError: If a command fails, with its output.
        """
        commands = [self.prepared(command) for command in block.commands()]
        # What a block exports is there in the next one, as in a reader's shell.
        exported = self.root / '.exported'
        done = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', '\n'.join([*commands, f'env -0 > {exported}'])],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        told = '\n'.join((done.stdout + done.stderr).splitlines()[-30:])
        assert done.returncode == 0, f'{block}: exit status {done.returncode}\n{told}'
        lines = exported.read_text().split('\0')
        self.environment = dict(line.split('=', 1) for line in lines if line)
        return len(commands)

    def run_python(self, block: Block, namespace: dict) -> None:
        """Run a block in this process, or write it to the file that its first line names."""
        file = re.match(r'# (\S+\.py)\n', block.text)
        if file:
            (self.root / file[1]).write_text(block.text)
        else:
            exec(compile(with_files(block.text), str(block), 'exec'), namespace)


def with_files(text: str) -> str:
    """Put files that exist in the place of placeholders."""
    words = '|'.join(PLACEHOLDERS)
    return re.sub(rf'\b({words})\b', lambda match: PLACEHOLDERS[match[0]], text)
