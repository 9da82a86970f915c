"""Estimate what loading a pickle would cost, before it is loaded.

torch loads weights without running code, but the few calls that it allows can be made to hang, to
fill the memory or to crash: a dictionary key of tuples in tuples is hashed 2^n times, or recurses
until the stack ends; a text is encoded again and again; a tensor of any size is asked for.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from itertools import takewhile
from typing import BinaryIO

_MOST_STEPS = 1_500_000
_MOST_NESTING = 100
# How much calls may copy, in multiples of the size of the pickle.
_MOST_COPIES = 16
_FREE_COPIES = 1_000_000
# Calls of these allocate as many bytes or numbers as their argument says.
_RESERVING = re.compile(
    r'(?:builtins|__builtin__) bytearray|torch(?:\.\w+)* (?:\w*Tensor|\w+Storage)'
)
_FEW = 5
_ENCODINGS = ('latin1', 'latin-1', 'utf-8', 'utf8', 'ascii')
# What torch.save writes when it does not write a zip file: four headers and the storages' names.
_NUM_LEGACY_PICKLES = 5


class CostlyPickleError(ValueError):
    """A pickle that no training program writes, and that would hang or fill the memory."""


@dataclass
class _Value:
    """What is known about an object that a pickle builds.

    Attributes:
        size: Letters, or objects within it.
        num_hashed: Objects that its hash takes into account.
        nesting: Containers within containers.
        text: Its letters, where it is short, or the name of a class or a function.
        items: Items of a short tuple.
    """

    size: int = 1
    num_hashed: int = 1
    nesting: int = 0
    text: str = ''
    items: tuple[_Value, ...] = ()


# Number of objects below the mark that an instruction takes, and whether it takes those above.
_TAKEN = {
    code.name: (
        len(list(takewhile(lambda item: item is not pickletools.markobject, code.stack_before))),
        pickletools.markobject in code.stack_before,
    )
    for code in pickletools.opcodes
}
_TUPLES = ('TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'FROZENSET')
_CALLS = ('REDUCE', 'NEWOBJ', 'NEWOBJ_EX', 'OBJ', 'INST', 'BUILD')
_IN_PLACE = ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS')


def check_pickles(file: BinaryIO, *, num_bytes: int, is_legacy: bool = False) -> None:
    """Go through the instructions of pickles, one after another in a file, loading nothing.

    Args:
        file: An open file, at the beginning of the first pickle.
        num_bytes: Bytes of the file.
        is_legacy: Whether there are as many as in a file of torch.save that is no zip file.

    Raises:
        CostlyPickleError: If one would hang, fill the memory, or crash the interpreter.
        ValueError: If it is no pickle.
    """
    budget = _MOST_COPIES * num_bytes + _FREE_COPIES
    for number in range(_NUM_LEGACY_PICKLES if is_legacy else 1):
        try:
            budget = _check(file, budget=budget)
        except (IndexError, KeyError):
            raise ValueError('an instruction refers to what is not there') from None
        except ValueError:
            # Pickles that torch.save did not write: torch reports what they are.
            if number == 0 or file.read(1):
                raise
            return


def _check(file: BinaryIO, *, budget: int) -> int:
    """Check one pickle, and return what is left of the budget."""
    stack: list[_Value] = []
    marks: list[int] = []
    memo: dict[object, _Value] = {}
    for step, (code, argument, _) in enumerate(pickletools.genops(file)):
        if step > _MOST_STEPS:
            raise CostlyPickleError(f'it has more than {_MOST_STEPS:,} instructions')
        name = code.name
        if name == 'MARK':
            marks.append(len(stack))
            continue
        if name.endswith('PUT') or name == 'MEMOIZE':
            memo[len(memo) if name == 'MEMOIZE' else argument] = stack[-1]
            continue
        if name.endswith('GET'):
            stack.append(memo[argument])
            continue
        num_below, takes_marked = _TAKEN[name]
        above: list[_Value] = []
        if takes_marked:
            start = marks.pop()
            above = stack[start:]
            del stack[start:]
        taken = [stack.pop() for _ in range(num_below)][::-1] + above
        if name in _IN_PLACE:
            owner, *items = taken
            num_hashed = sum(item.num_hashed for item in items)
            owner.size += num_hashed
            if num_hashed > len(items):
                budget -= num_hashed
            owner.nesting = max([owner.nesting, *(item.nesting + 1 for item in items)])
            made = owner
        elif name in _CALLS:
            made = _called(name, taken, text=str(argument) if name == 'INST' else '')
            budget -= made.size
        elif name in _TUPLES or takes_marked:
            made = _tuple(taken)
        elif name == 'STACK_GLOBAL':
            made = _Value(text=f'{taken[0].text} {taken[1].text}')
        elif isinstance(argument, (str, bytes, bytearray)):
            text = argument if isinstance(argument, str) and len(argument) < 200 else ''
            made = _Value(size=len(argument), text=text)
        elif name == 'BINPERSID' or not taken:
            made = _Value()
        else:
            made = taken[0]
        if budget < 0:
            raise CostlyPickleError('it copies the same content again and again')
        if made.nesting > _MOST_NESTING:
            raise CostlyPickleError(f'its content is nested more than {_MOST_NESTING} deep')
        stack += [made] * len(code.stack_after)
    return budget


def _tuple(items: list[_Value]) -> _Value:
    num_hashed = 1 + sum(item.num_hashed for item in items)
    if num_hashed > _MOST_STEPS:
        raise CostlyPickleError('it holds tuples within tuples without end')
    return _Value(
        size=1 + sum(item.size for item in items),
        num_hashed=num_hashed,
        nesting=1 + max((item.nesting for item in items), default=0),
        items=tuple(items) if len(items) < _FEW else (),
    )


def _called(name: str, taken: list[_Value], *, text: str) -> _Value:
    """Check a call, and return what is known of its result."""
    function = text or (taken[0].text if taken else '')
    if name != 'BUILD' and _RESERVING.fullmatch(function):
        raise CostlyPickleError(f'it asks for memory ({function.replace(" ", ".")})')
    arguments = taken[1].items if len(taken) > 1 else ()
    if function == '_codecs encode' and len(arguments) > 1 and arguments[1].text not in _ENCODINGS:
        raise CostlyPickleError('it encodes texts in a way that lets them grow')
    return _Value(
        size=sum(value.size for value in taken[1:]),
        nesting=max((value.nesting for value in taken), default=0),
    )
