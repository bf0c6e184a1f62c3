"""What a graph may hold; TensorFlow never loads the bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.tensorflow.operators import refuse


def graph(
    *nodes: tuple[str, str, list[str]], functions: dict[str, list[tuple[str, str, list[str]]]] | None = None
) -> Any:
    """A ``GraphDef`` of (name, operator, inputs); an operator ``call:F`` calls the function F."""
    graph_pb2 = pytest.importorskip("tensorflow.core.framework.graph_pb2", reason="tensorflow is not installed")
    made = graph_pb2.GraphDef()

    def fill(target: Any, items: Any) -> None:
        for name, operator, inputs in items:
            node = target.add(
                name=name, op="PartitionedCall" if operator.startswith("call:") else operator, input=inputs
            )
            if operator.startswith("call:"):
                node.attr["f"].func.name = operator[5:]

    fill(made.node, nodes)
    for name, items in (functions or {}).items():
        function = made.library.function.add()
        function.signature.name = name
        fill(function.node_def, items)
    return made


@pytest.mark.parametrize(
    "operator",
    [
        "PyFunc",
        "PyFuncStateless",
        "EagerPyFunc",
        "ReadFile",
        "WriteFile",
        "MatchingFiles",
        "WholeFileReaderV2",
        "TFRecordReader",
        "ReaderReadUpToV2",
        "TextLineDataset",
        "TFRecordDatasetV2",
        "ExperimentalSqlDataset",
        "CacheDatasetV2",
        "SaveDatasetV2",
        "LoadDataset",
        "SnapshotDatasetV2",
        "DataServiceDatasetV4",
        "WriteScalarSummary",
        "CreateSummaryFileWriter",
        "DebugIdentityV2",
        "RpcCall",
        "PrintV2",
    ],
)
def test_these_are_refused_wherever_they_stand(operator: str) -> None:
    for made in (graph(("bad", operator, [])), graph(functions={"f": [("bad", operator, [])]})):
        with pytest.raises(CheckFailed) as raised:
            refuse(made, [], Place())
        assert raised.value.found == f"{operator} (bad)"


def test_printing_to_a_stream_is_no_file() -> None:
    made = graph(("said", "PrintV2", []))
    made.node[0].attr["output_stream"].s = b"stderr"
    refuse(made, ["said"], Place())
    made.node[0].attr["output_stream"].s = b"file:///tmp/said"
    with pytest.raises(CheckFailed):
        refuse(made, ["said"], Place())


def test_a_savedmodel_may_restore_itself_but_no_request_may() -> None:
    nodes = (("restored", "call:restore", []), ("y", "call:serve", ["x"]), ("x", "Placeholder", []))
    functions = {
        "restore": [("r", "RestoreV2", [])],
        "serve": [("inner", "call:deep", [])],
        "deep": [("a", "AddV2", [])],
    }
    refuse(graph(*nodes, functions=functions), ["y:0"], Place())
    functions["deep"] = [("s", "SaveV2", [])]
    with pytest.raises(CheckFailed) as raised:
        refuse(graph(*nodes, functions=functions), ["y:0"], Place())
    assert raised.value.found == "SaveV2 (s)"


def test_a_table_is_filled_from_the_models_own_files_alone() -> None:
    made = graph(
        ("table", "HashTableV2", []),
        ("path", "Const", []),
        ("filled", "InitializeTableFromTextFileV2", ["table", "path"]),
    )
    refuse(made, [], Place(), assets=["path"])
    with pytest.raises(CheckFailed) as raised:
        refuse(made, [], Place())
    assert raised.value.found == "InitializeTableFromTextFileV2 (filled)"
