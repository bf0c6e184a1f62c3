"""Ask a live server a golden case that is a sequence: request after request, several sequences at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from tritonforge.artifact.tensors import Case
from tritonforge.errors import ForgeError
from tritonforge.triton.client import Client

if TYPE_CHECKING:
    import numpy as np

AT_ONCE: Final = 8
"""Sequences that are asked side by side at most: enough to show that they do not mix, and that they may share a
batch."""

Answer = Mapping[str, "np.ndarray[Any, Any]"] | ForgeError


@dataclass(frozen=True, slots=True)
class _One:
    """One sequence: all requests of a case, or of one row of its batch."""

    case: int
    row: int | None
    inputs: Mapping[str, np.ndarray[Any, Any]]


def slots(config: Any) -> int:
    """How many sequences one instance takes at once; a further one waits until another ends.

    Source: core ``sequence_batch_scheduler.cc`` (``seq_slot_cnt_``).
    """
    batch = max(1, int(config.max_batch_size))
    batching = config.sequence_batching
    return int(batching.oldest.max_candidate_sequences) or batch if batching.HasField("oldest") else batch


def emulated(config: Any, server: str) -> str | None:
    """What evidence says where the embedded server's stand-in keeps the states that Triton's core is to keep."""
    if server != "embedded" or not config.sequence_batching.state:
        return None
    return "implicit state was kept by the stand-in backend: on a native backend Triton's core keeps it"


def ask(
    client: Client,
    folder: str,
    version: int,
    cases: Sequence[Case],
    datatypes: Mapping[str, str],
    *,
    batched: bool,
    at_once: int,
    protocol: Literal["http", "grpc"],
    first_id: int | None = None,
) -> list[tuple[Case, Answer]]:
    """The answers to each case, with the requests on the leading axis, or what went wrong first.

    The rows of a batched case are sequences of their own. Up to ``at_once`` sequences run in lockstep: the first
    request of all, the second of all, and so on.
    """
    import numpy as np

    ones = list(_sequences(cases, batched))
    number = first_id if first_id is not None else 1 + secrets.randbelow(1 << 48)
    found: dict[tuple[int, int | None], Any] = {}
    size = max(1, min(at_once, AT_ONCE))
    with ThreadPoolExecutor(size) as pool:
        for start in range(0, len(ones), size):
            group = ones[start : start + size]
            answers: list[Any] = [[] for _ in group]
            for step in range(max(_count(one) for one in group)):

                def request(index: int, step: int = step, group: list[_One] = group, at: int = start) -> Any:
                    one = group[index]
                    return _request(client, folder, version, one, step, number + at + index, datatypes, protocol)

                going = [i for i, one in enumerate(group) if isinstance(answers[i], list) and step < _count(one)]
                for index, answer in zip(going, pool.map(request, going), strict=True):
                    if isinstance(answer, ForgeError):
                        answers[index] = answer
                    else:
                        answers[index].append(answer)
            for one, answer in zip(group, answers, strict=True):
                found[one.case, one.row] = answer
    results: list[tuple[Case, Answer]] = []
    for index, case in enumerate(cases):
        parts = [answer for (at, _), answer in found.items() if at == index]
        wrong = next((part for part in parts if isinstance(part, ForgeError)), None)
        if wrong is not None:
            results.append((case, wrong))
            continue
        whole = [{name: np.stack([one[name] for one in part]) for name in part[0]} for part in parts]
        results.append(
            (case, {name: np.concatenate([part[name] for part in whole], axis=1) for name in whole[0]})
            if batched
            else (case, whole[0])
        )
    return results


def _sequences(cases: Sequence[Case], batched: bool) -> Iterator[_One]:
    for index, case in enumerate(cases):
        if not batched:
            yield _One(index, None, case.inputs)
            continue
        for row in range(next(iter(case.inputs.values())).shape[1]):
            yield _One(index, row, {name: array[:, row : row + 1] for name, array in case.inputs.items()})


def _count(one: _One) -> int:
    return int(next(iter(one.inputs.values())).shape[0])


def _request(
    client: Client,
    folder: str,
    version: int,
    one: _One,
    step: int,
    number: int,
    datatypes: Mapping[str, str],
    protocol: Literal["http", "grpc"],
) -> Any:
    try:
        return client.infer(
            folder,
            {name: array[step] for name, array in one.inputs.items()},
            protocol=protocol,
            version=str(version),
            datatypes={name: datatypes[name] for name in one.inputs},
            sequence_id=number,
            sequence_start=step == 0,
            sequence_end=step == _count(one) - 1,
        )
    except ForgeError as error:
        return error
