"""Define a study: settings, (resolution, window) pairs and cells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swinv2_mm.core.position_bias import POSITION_BIASES
from swinv2_mm.errors import UserError

from .images import ImageFolders

_PATCH_SIZE_PX = 4
# A backward pass costs about two forward passes.
_PASSES_OF_A_STEP = 3


@dataclass(frozen=True)
class Pair:
    """Side of the images in pixels, and of the windows in tokens."""

    resolution_px: int
    window: int

    @classmethod
    def parse(cls, text: str) -> Pair:
        """Read a pair such as ``128/8``.

        Raises:
            UserError: If the text is none, or the window is larger than the first stage's map.
        """
        match = re.fullmatch(r'(\d+)/(\d+)', text)
        if not match or not int(match[2]):
            raise UserError(
                f"--pairs takes pixels/tokens of an image's and a window's side, such as 128/8, "
                f"got '{text}'"
            )
        pair = cls(int(match[1]), int(match[2]))
        side = pair.resolution_px // _PATCH_SIZE_PX
        if pair.window > side:
            raise UserError(
                f'--pairs {text}: an image of {pair.resolution_px} px has {side} tokens a side in '
                f'the first stage, the window cannot be larger'
            )
        return pair

    def __str__(self) -> str:
        return f'{self.resolution_px}/{self.window}'

    def stage_windows(self, num_stages: int) -> tuple[int, ...]:
        """Return the window of each stage: never larger than the stage's map.

        What a clipped window leaves out would never be trained. Declaring the clipped side
        instead makes it the reference that larger windows are measured by, so that the last
        stage is transferred by the same factor as the others (as in the released models,
        12, 12, 12, 6 at 192 px).
        """
        sides = []
        side = -(-self.resolution_px // _PATCH_SIZE_PX)
        for _ in range(num_stages):
            sides.append(min(self.window, side))
            side = -(-side // 2)
        return tuple(sides)


@dataclass(frozen=True)
class Cell:
    """One piece of work with a result of its own.

    Attributes:
        kind: ``train`` at the first pair; ``test`` these weights at a pair; ``tune`` them at a
            pair for a few epochs, then test.
        bias: Position bias.
        seed: Seed of the weights, the order of the data and the augmentation.
        pair: Where it runs.
    """

    kind: Literal['train', 'test', 'tune']
    bias: str
    seed: int
    pair: Pair

    @property
    def folder(self) -> Path:
        """Where its files lie, relative to the work dir."""
        name = f'{self.kind}_{self.pair.resolution_px}px_w{self.pair.window}'
        return Path(self.bias, f'seed{self.seed}', name)

    def __str__(self) -> str:
        return f'{self.bias}, seed {self.seed}, {self.kind} at {self.pair}'


@dataclass(frozen=True, kw_only=True)
class Study:
    """All settings of a study.

    Attributes:
        images: Data set.
        arch: Name or dictionary, as text.
        pairs: The first is trained at.
        biases: Position biases to compare.
        seeds: Each gives one training per bias.
        epochs: Epochs of the training.
        fine_tune_epochs: Epochs of the fine-tuning at each other pair; 0 for none.
        lr: Peak learning rate of the training.
        fine_tune_lr: Peak learning rate of the fine-tuning.
        batch_size: In training.
        min_crop_rate: Least share of an image that a training crop shows, in (0, 1].
        test_crop_rate: Side of the central crop that is tested, relative to the image's.
        with_flip: Whether training images are mirrored at random.
        cfg_options: Further changes of the config.
    """

    images: ImageFolders
    arch: str
    pairs: tuple[Pair, ...]
    biases: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int
    fine_tune_epochs: int
    lr: float
    fine_tune_lr: float
    batch_size: int
    min_crop_rate: float
    test_crop_rate: float
    with_flip: bool
    cfg_options: tuple[str, ...]

    def check(self) -> None:
        """Refuse what cannot be run.

        Raises:
            UserError: If a value does not fit.
        """
        for name, values in (
            ('--pairs', self.pairs),
            ('--biases', self.biases),
            ('--seeds', self.seeds),
        ):
            if len(set(values)) < len(values):
                raise UserError(f'{name} names something twice')
        if any(bias not in POSITION_BIASES for bias in self.biases):
            raise UserError(f'--biases takes {", ".join(POSITION_BIASES)}, got {self.biases}')
        if len(self.pairs) < 2:
            raise UserError('--pairs needs the pair to train at and at least one to test at')
        for name, value, fits in (
            ('--epochs', self.epochs, self.epochs >= 1),
            ('--fine-tune-epochs', self.fine_tune_epochs, self.fine_tune_epochs >= 0),
            ('--lr', self.lr, 0 < self.lr < 1),
            ('--fine-tune-lr', self.fine_tune_lr, 0 < self.fine_tune_lr < 1),
            ('--seeds', self.seeds, min(self.seeds) >= 0),
            ('--min-crop', self.min_crop_rate, 0 < self.min_crop_rate <= 1),
            ('--test-crop', self.test_crop_rate, 0 < self.test_crop_rate <= 1),
            ('--batch-size', self.batch_size, 1 <= self.batch_size <= self.images.num_train),
        ):
            if not fits:
                raise UserError(f'{name}: {value} does not fit')

    def cells(self) -> Iterator[Cell]:
        """List the work: all that needs no fine-tuning first."""
        first, *others = self.pairs
        runs = [(bias, seed) for seed in self.seeds for bias in self.biases]
        for bias, seed in runs:
            yield Cell('train', bias, seed, first)
            yield from (Cell('test', bias, seed, pair) for pair in self.pairs)
        if self.fine_tune_epochs:
            for bias, seed in runs:
                yield from (Cell('tune', bias, seed, pair) for pair in others)

    def iterations(self, cell: Cell) -> int:
        """Return the training iterations of a cell."""
        epochs = {'train': self.epochs, 'tune': self.fine_tune_epochs, 'test': 0}[cell.kind]
        return epochs * (self.images.num_train // self.batch_size)

    def cost(self, cell: Cell) -> float:
        """Estimate the work of a cell, in pixels through the network."""
        num_tested = 0 if cell.kind == 'train' else self.images.num_val
        num_trained = self.iterations(cell) * self.batch_size
        return (num_trained * _PASSES_OF_A_STEP + num_tested) * cell.pair.resolution_px**2

    def training_share(self, cell: Cell) -> float:
        """Return the part of a cell's work that is training."""
        num_trained = self.iterations(cell) * self.batch_size
        return num_trained * _PASSES_OF_A_STEP * cell.pair.resolution_px**2 / self.cost(cell)

    def settings(self, cell: Cell) -> dict:
        """Return what decides the result of a cell; a result of other settings is not reused."""
        settings = {
            '--data-root': str(self.images.root),
            'pictures': [self.images.num_train, self.images.num_val, len(self.images.classes)],
            '--arch': self.arch,
            'first of --pairs': str(self.pairs[0]),
            '--epochs': self.epochs,
            '--lr': self.lr,
            '--batch-size': self.batch_size,
            '--min-crop': self.min_crop_rate,
            '--no-flip': not self.with_flip,
            '--cfg-options': list(self.cfg_options),
        }
        if cell.kind != 'train':
            settings['--test-crop'] = self.test_crop_rate
        if cell.kind == 'tune':
            settings['--fine-tune-epochs'] = self.fine_tune_epochs
            settings['--fine-tune-lr'] = self.fine_tune_lr
        return settings
