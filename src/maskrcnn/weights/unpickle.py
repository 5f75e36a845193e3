"""A pickle machine that calls nothing: it builds containers, arrays and notes, whatever the pickle asks for.

Python's own unpickler imports and calls what a pickle names. This one walks the opcodes and knows a dozen
constructors by name (OrderedDict, numpy's array, torch's tensor), each of which is a function of this file;
any other name becomes an `Inert` note that is never imported, called or given attributes.
"""

import math
import mmap
import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Malformed(Exception):
    """The bytes are no pickle that this machine reads."""


@dataclass(frozen=True)
class Global:
    """A name that the pickle refers to; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, eq=False)
class Inert:
    """What an unknown constructor would have built. name: of that constructor."""

    name: str


@dataclass(frozen=True)
class Storage:
    """torch's flat memory of one tensor. dtype: a key of STORAGE_DTYPES; count: number of values."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A strided view of a Storage: offset, size and stride count values, not bytes."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class Dtype:
    """A numpy dtype under construction; BUILD adds the byte order."""

    code: str
    order: str = "<"


@dataclass
class PickledArray:
    """A numpy array under construction; array is None until BUILD fills it, and for dtype object."""

    array: NDArray[Any] | None = None


MOST_SIDES = 32
"""Dimensions of an array; numpy 1.26 has no more, and a product of thousands of numbers takes for ever."""

# bfloat16 is read as its 16 bits; `readers` widens it.
STORAGE_DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def to_mark(self) -> list[Any]:
        """Take everything since the last MARK."""
        items, self.stack = self.stack, self.marks.pop()
        return items


def unpickle(stream: Any, storages: dict[str, Storage] | None = None) -> Any:
    """The value of one pickle, read from where the stream stands. Raises Malformed.

    storages: collects the storages that it names, by their keys.
    """
    machine = _Machine(storages={} if storages is None else storages)
    try:
        for opcode, argument, position in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.stack.pop()
            _step(machine, opcode.name, _as_it_lies(stream, opcode.name, argument, position or 0))
    except _FAULTS as error:
        raise Malformed(str(error) or type(error).__name__) from error
    raise Malformed("it has no end")


def _as_it_lies(stream: Any, name: str, argument: Any, position: int) -> Any:
    """A long string as a view of the mapped file; the string itself would be kept beside its array."""
    if name not in _HEADERS or len(argument) < LONG or not isinstance(stream, mmap.mmap):
        return argument
    start = position + _HEADERS[name]
    return memoryview(stream)[start : start + len(argument)]


LONG = 2**20
_HEADERS = {"BINSTRING": 5, "BINBYTES": 5, "BINBYTES8": 9}
_FAULTS = (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError, RecursionError)


def _step(machine: _Machine, name: str, argument: Any) -> None:
    if name in _CONSTANTS:
        machine.stack.append(argument)
    elif name in _VALUES:
        machine.stack.append(_VALUES[name]())
    elif name in _STEPS:
        _STEPS[name](machine, argument)
    else:
        raise Malformed(f"opcode {name} is not read")


_CONSTANTS = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
    + ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
    + ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
)
_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}


def _ignore(machine: _Machine, argument: Any) -> None:
    pass


def _mark(machine: _Machine, argument: Any) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _remember(machine: _Machine, argument: Any) -> None:
    machine.memo[len(machine.memo) if argument is None else argument] = machine.stack[-1]


def _recall(machine: _Machine, argument: Any) -> None:
    machine.stack.append(machine.memo[argument])


def _pop(machine: _Machine, argument: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.to_mark()


def _pop_mark(machine: _Machine, argument: Any) -> None:
    machine.to_mark()


def _take(count: int, build: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, argument: Any) -> None:
        if len(machine.stack) < count:
            raise Malformed("a value is missing")
        items = machine.stack[-count:]
        del machine.stack[-count:]
        machine.stack.append(build(items))

    return step


def _take_to_mark(build: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, argument: Any) -> None:
        items = machine.to_mark()
        machine.stack.append(build(items))

    return step


def _append(machine: _Machine, items: Iterable[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Inert):
        raise Malformed("items for something that is no list")


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, dict):
        target.update(_pairs(items))
    elif not isinstance(target, Inert):
        raise Malformed("keys for something that is no dict")


def _set_item(machine: _Machine, argument: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_items(machine, [key, value])


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _key(key: Any) -> Any:
    # Hashing a tuple nested a hundred thousand deep overflows the C stack.
    if isinstance(key, tuple) and any(isinstance(part, tuple) for part in key):
        raise Malformed("a key is a nested tuple")
    return key


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.stack.append(Global(module, name))


def _named(items: list[Any]) -> Global:
    # str() of anything else could take for ever: a list can hold itself twice, forty levels deep.
    if not (isinstance(items[0], str) and isinstance(items[1], str)):
        raise Malformed("a name is no text")
    return Global(items[0], items[1])


def _call(function: Any, arguments: Any) -> Any:
    """REDUCE, NEWOBJ, OBJ and INST all end here: a constructor of this file, or a note."""
    if not isinstance(function, Global):
        if isinstance(function, Inert):
            return function
        raise Malformed("it calls something that is no name")
    build = _BUILDERS.get(str(function).replace("numpy._core.", "numpy.core."))
    return Inert(str(function)) if build is None else build(*arguments)


def _instance(machine: _Machine, argument: str) -> None:
    machine.to_mark()
    machine.stack.append(Inert(argument.replace(" ", ".", 1)))


def _build(machine: _Machine, argument: Any) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if isinstance(target, Dtype):
        target.order = "<" if state[1] in ("|", "=") else state[1]
    elif isinstance(target, PickledArray):
        _, shape, dtype, fortran, content = state
        target.array = _array(content, dtype, shape, "F" if fortran else "C").array


def _array(content: Any, dtype: Dtype, shape: Any, order: str) -> PickledArray:
    kind = _numpy_dtype(dtype)
    if kind is None:
        return PickledArray()
    raw = memoryview(content.encode("latin-1") if isinstance(content, str) else content)
    sides = _whole_numbers(shape)
    if math.prod(sides) * kind.itemsize != len(raw):
        raise Malformed(f"an array of shape {sides} has {len(raw)} bytes")
    array = np.frombuffer(raw, kind).reshape(sides, order="F" if order == "F" else "C")
    return PickledArray(array.astype(kind.newbyteorder("="), copy=False))


def _whole_numbers(values: Any) -> tuple[int, ...]:
    numbers = tuple(values)
    if len(numbers) > MOST_SIDES or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise Malformed("a shape or stride is not made of whole numbers")
    return numbers


def _numpy_dtype(dtype: Dtype) -> np.dtype[Any] | None:
    if not isinstance(dtype, Dtype) or dtype.code.lstrip("<>|=") not in _NUMBERS:
        return None
    return np.dtype(dtype.code.lstrip("<>|=")).newbyteorder(">" if dtype.order == ">" else "<")


_NUMBERS = frozenset(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"))


def _scalar(dtype: Any, content: Any = b"") -> Any:
    array = _array(content, dtype, (), "C").array
    return Inert("numpy scalar") if array is None else array.item()


def _text_to_bytes(text: Any, encoding: str = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Malformed(f"bytes encoded as {encoding}")
    return text.encode("latin-1")


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Any:
    if not isinstance(storage, Storage):
        return storage if isinstance(storage, Inert) else Inert("a tensor without storage")
    (start,) = _whole_numbers((offset,))
    return Tensor(storage, start, _whole_numbers(size), _whole_numbers(stride))


def _persistent(machine: _Machine, argument: Any) -> None:
    storage = _storage(machine.stack.pop())
    if isinstance(storage, Storage):
        machine.storages[storage.key] = storage
    machine.stack.append(storage)


def _storage(identity: Any) -> Any:
    """identity: ("storage", type, key, device, count[, view]), torch.save's word for a flat memory."""
    if not (isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage"):
        return Inert("a persistent id")
    kind, key, count = identity[1], identity[2], identity[4]
    dtype = STORAGE_DTYPES.get(kind.name) if isinstance(kind, Global) and kind.module == "torch" else None
    if dtype is None or not isinstance(key, str) or not isinstance(count, int):
        return Inert(str(kind) if isinstance(kind, Global) else "a storage")
    return Storage(dtype, key, count)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda factory=None, *rest: {},
    "_codecs.encode": _text_to_bytes,
    "numpy.dtype": lambda code, *rest: Dtype(code if isinstance(code, str) else ""),
    "numpy.core.multiarray._reconstruct": lambda *rest: PickledArray(),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array,
    "torch.Size": lambda size=(): _whole_numbers(size),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *rest: tensor,
}

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _ignore,
    "FRAME": _ignore,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _remember,
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "MEMOIZE": _remember,
    "GET": _recall,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "LIST": _take_to_mark(list),
    "TUPLE": _take_to_mark(tuple),
    "FROZENSET": _take_to_mark(list),
    "DICT": _take_to_mark(_pairs),
    "TUPLE1": _take(1, tuple),
    "TUPLE2": _take(2, tuple),
    "TUPLE3": _take(3, tuple),
    "APPEND": lambda machine, _: _append(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.to_mark()),
    "ADDITEMS": lambda machine, _: _append(machine, machine.to_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: _set_items(machine, machine.to_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _take(2, _named),
    "REDUCE": _take(2, lambda items: _call(items[0], items[1])),
    "NEWOBJ": _take(2, lambda items: _call(items[0], items[1])),
    "NEWOBJ_EX": _take(3, lambda items: _call(items[0], items[1])),
    "OBJ": _take_to_mark(lambda items: _call(items[0], items[1:])),
    "INST": _instance,
    "BUILD": _build,
    "BINPERSID": _persistent,
}
