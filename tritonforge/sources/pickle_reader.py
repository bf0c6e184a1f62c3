"""What a pickle would build, told without building it: nothing is imported and nothing is called.

The opcodes are those of ``pickletools``; a global, a call and an object's state become plain records.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from tritonforge.errors import CheckFailed, Place

BYTES_LIMIT: Final = 64 * 2**20
"""Bytes of pickles in one file: tensors lie beside them, and 100,000 of them need about 20 MB."""

OPS_LIMIT: Final = 8_000_000
"""Opcodes of pickles in one file."""


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """Something that loading would import: its dotted name."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """Something stored outside the pickle, such as a tensor's bytes."""

    id: Any


@dataclass(slots=True, eq=False)
class Items:
    """A list or a set."""

    values: list[Any] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Pairs:
    """A dict; keys need not be hashable here."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Call:
    """What calling ``function`` would make, and what would be put into it afterwards."""

    function: Any
    arguments: Any
    values: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    state: Any = None


@dataclass(frozen=True, slots=True)
class Pickle:
    """One pickle: the value it would make, and the globals it would import in the order of their first use."""

    value: Any
    globals: tuple[str, ...]


class Reader:
    """Reads the pickles that stand one behind another in a stream, within one budget of bytes and opcodes."""

    def __init__(self, stream: BinaryIO, place: Place) -> None:
        self._stream = _Bounded(stream, BYTES_LIMIT)
        self._place = place
        self._ops = 0

    def read(self) -> Pickle:
        """The next pickle.

        Raises:
            CheckFailed: truncated, malformed, or larger than ``BYTES_LIMIT`` or ``OPS_LIMIT``.
        """
        machine = _Machine()
        try:
            for opcode, argument, _ in pickletools.genops(self._stream):  # type: ignore[arg-type]
                self._ops += 1
                if self._ops > OPS_LIMIT:
                    raise _Malformed(f"more than {OPS_LIMIT} opcodes")
                if opcode.name == "STOP":
                    return Pickle(machine.pop(), tuple(machine.globals))
                machine.step(opcode.name, argument)
        except (ValueError, LookupError, OverflowError, EOFError, struct.error, RecursionError) as error:
            found = str(error)
        else:
            found = "no end"
        raise CheckFailed(
            "a pickle is truncated or malformed", place=self._place, expected="a whole pickle", found=found[:200]
        )


class _Malformed(ValueError):
    pass


class _Bounded:
    """A stream that refuses to hand out more than its budget, whatever length an opcode claims."""

    def __init__(self, stream: BinaryIO, budget: int) -> None:
        self._stream = stream
        self._budget = budget

    def _spend(self, data: bytes) -> bytes:
        self._budget -= len(data)
        return data

    def read(self, size: int) -> bytes:
        if size > self._budget:
            raise _Malformed(f"a value of {size} bytes, where {self._budget} are left of {BYTES_LIMIT}")
        return self._spend(self._stream.read(size))

    def readline(self) -> bytes:
        return self._spend(self._stream.readline(self._budget))

    def tell(self) -> int:
        return self._stream.tell()


_CONSTANTS: Final = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "FLOAT", "BINFLOAT",
}  # fmt: skip
_FIXED: Final[dict[str, Any]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "NEXT_BUFFER": None}
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED: Final = {"PROTO", "FRAME", "READONLY_BUFFER"}


class _Machine:
    """The stack machine of the pickle protocol, over records."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[str, None] = {}

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _Malformed("a value is missing on the stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise _Malformed("a value is missing on the stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise _Malformed("a mark is missing on the stack")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def name(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Malformed("a global without a name")
        found = Global(f"{'builtins' if module == '__builtin__' else module}.{name}")
        self.globals[found.name] = None
        return found

    def step(self, op: str, argument: Any) -> None:
        if op in _CONSTANTS:
            self.stack.append(argument)
        elif op in _FIXED:
            self.stack.append(_FIXED[op])
        elif op in _TUPLES:
            self.stack.append(tuple(reversed([self.pop() for _ in range(_TUPLES[op])])))
        elif op in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.top()
        elif op == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif op not in _IGNORED:
            act = _ACTS.get(op)
            if act is None:
                raise _Malformed(f"the opcode {op} is not known")
            act(self, argument)


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    if len(values) % 2:
        raise _Malformed("a key without a value")
    return list(zip(values[::2], values[1::2], strict=True))


def _put_values(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, Items | Call):
        raise _Malformed("values are put into what is no list")
    target.values.extend(values)


def _put_pairs(machine: _Machine, pairs: list[tuple[Any, Any]]) -> None:
    target = machine.top()
    if not isinstance(target, Pairs | Call):
        raise _Malformed("items are put into what is no dict")
    target.pairs.extend(pairs)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    _put_values(machine, [value])


def _set_item(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    key = machine.pop()
    _put_pairs(machine, [(key, value)])


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.stack.append(machine.name(module, name))


def _stack_global(machine: _Machine, _: Any) -> None:
    name = machine.pop()
    machine.stack.append(machine.name(machine.pop(), name))


def _extension(machine: _Machine, argument: int) -> None:
    machine.stack.append(machine.name("copyreg", f"extension({argument})"))


def _call(machine: _Machine, _: Any) -> None:
    arguments = machine.pop()
    machine.stack.append(Call(machine.pop(), arguments))


def _call_with_names(machine: _Machine, _: Any) -> None:
    named = machine.pop()
    arguments = machine.pop()
    machine.stack.append(Call(machine.pop(), arguments, pairs=[("keywords", named)]))


def _instance(machine: _Machine, argument: str) -> None:
    arguments = tuple(machine.pop_mark())
    _global(machine, argument)
    machine.stack.append(Call(machine.pop(), arguments))


def _object(machine: _Machine, _: Any) -> None:
    values = machine.pop_mark()
    if not values:
        raise _Malformed("an object without a class")
    machine.stack.append(Call(values[0], tuple(values[1:])))


def _build(machine: _Machine, _: Any) -> None:
    state = machine.pop()
    target = machine.top()
    if isinstance(target, Call):
        target.state = state


def _pop(machine: _Machine, _: Any) -> None:
    # As in CPython: POP above a mark takes the mark itself.
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.pop_mark()


_ACTS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "EMPTY_LIST": lambda machine, _: machine.stack.append(Items()),
    "EMPTY_SET": lambda machine, _: machine.stack.append(Items()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append(Pairs()),
    "LIST": lambda machine, _: machine.stack.append(Items(machine.pop_mark())),
    "FROZENSET": lambda machine, _: machine.stack.append(Items(machine.pop_mark())),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "DICT": lambda machine, _: machine.stack.append(Pairs(_pairs(machine.pop_mark()))),
    "APPEND": _append,
    "APPENDS": lambda machine, _: _put_values(machine, machine.pop_mark()),
    "ADDITEMS": lambda machine, _: _put_values(machine, machine.pop_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: _put_pairs(machine, _pairs(machine.pop_mark())),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "EXT1": _extension,
    "EXT2": _extension,
    "EXT4": _extension,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_with_names,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": _build,
    "PERSID": lambda machine, argument: machine.stack.append(Persistent(argument)),
    "BINPERSID": lambda machine, _: machine.stack.append(Persistent(machine.pop())),
}
