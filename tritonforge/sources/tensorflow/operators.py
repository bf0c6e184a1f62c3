"""The operators that a model must not bring: those that reach files, the network or Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place

_NEVER: Final = re.compile(
    r"(Eager)?PyFunc(Stateless)?"
    r"|ReadFile|WriteFile|MatchingFiles|LookupTableExportToFile"
    r"|(WholeFile|FixedLengthRecord|TextLine|TFRecord|LMDB|Identity)Reader(V2)?|ReaderRead.*"
    r"|.*(CSV|LMDB|Sql|TextLine|TFRecord|FixedLengthRecord|MatchingFiles|SSTable)Dataset(V\d)?"
    r"|(Save|Load|Snapshot|Cache|DistributedSave).*Dataset(V\d)?|DatasetToTFRecord|DistributedSave|DataService.*"
    r"|Experimental(CSV|LMDB|Sql|MatchingFiles)Dataset"
    r"|Write.*Summary|Create.*Summary.*|Debug(Identity|NanCount|NumericSummary).*"
    r"|RpcCall|TryRpc|RpcServer.*|RpcClient"
)
"""They have no place in a model that answers requests. Names are TensorFlow's own (``tf.raw_ops``)."""

_CHECKPOINT: Final = re.compile(r"(Save|Restore|MergeV2)(V2|Slices|Slice|Checkpoints)?")
"""Every SavedModel has these in the functions that write and read its own variables; a signature must not."""

_PRINTS: Final = ("stderr", "stdout", "log(info)", "log(warning)", "log(error)")


def refuse(graph: Any, roots: Iterable[str], place: Place, assets: Iterable[str] = ()) -> None:
    """Refuse a ``GraphDef`` with an operator that reads or writes files, opens connections or calls Python.

    ``roots`` are the nodes that a request runs; ``assets`` the nodes that hold the names of the model's own files.

    Raises:
        CheckFailed: with the operators' names and where they stand.
    """
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    bad = {f"{node.op} ({node.name})" for node in _all(graph) if _reaches_out(node)}
    bad |= {
        f"{node.op} ({node.name})" for node in _reachable(graph, functions, roots) if _CHECKPOINT.fullmatch(node.op)
    }
    bad |= _foreign_tables(graph, set(assets))
    if bad:
        raise CheckFailed(
            "the model has operators that reach files, the network or Python",
            place=place,
            found=", ".join(sorted(bad)[:8]),
            expected="a graph that computes its outputs from its inputs alone",
            hint="save it without the functions that have them; what they do belongs before or after the model, in a "
            "Python model of an ensemble",
        )


def _all(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _reaches_out(node: Any) -> bool:
    if node.op == "PrintV2":
        return node.attr["output_stream"].s.decode(errors="replace") not in _PRINTS
    return _NEVER.fullmatch(node.op) is not None


def _reachable(graph: Any, functions: Mapping[str, Any], roots: Iterable[str]) -> Iterator[Any]:
    """The nodes behind ``roots``, with the bodies of the functions that they call."""
    nodes = {node.name: node for node in graph.node}
    todo, seen = [name.split(":")[0].lstrip("^") for name in roots], set()
    called: list[str] = []
    while todo:
        name = todo.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        node = nodes[name]
        yield node
        todo += [item.split(":")[0].lstrip("^") for item in node.input]
        called += _calls(node)
    entered = set()
    while called:
        name = called.pop()
        if name in entered or name not in functions:
            continue
        entered.add(name)
        for node in functions[name]:
            yield node
            called += _calls(node)


def _calls(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name


def called_functions(graph: Any, tensor: str) -> frozenset[str]:
    """The functions that the wrapper of a signature calls: two signatures with the same ones are one."""
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    outer = next((node for node in graph.node if node.name == tensor.split(":")[0]), None)
    wrappers = [] if outer is None else list(_calls(outer))
    return frozenset(name for wrapper in wrappers for node in functions.get(wrapper, ()) for name in _calls(node))


def _foreign_tables(graph: Any, assets: set[str]) -> set[str]:
    """Tables that are filled from a file whose name is written into the graph: it is none of the model's own."""
    found = set()
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        constants = {node.name for node in nodes if node.op == "Const"} - assets
        for node in nodes:
            if node.op.startswith("InitializeTableFromTextFile") and node.input[1].split(":")[0] in constants:
                found.add(f"{node.op} ({node.name})")
    return found
