"""Reference cases under the names that clients see, where a backend has names of its own for tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping


def renamed_cases(document: bytes, names: Mapping[str, Mapping[str, str]]) -> bytes:
    """``cases.json`` with other names of tensors: ``names`` has ``inputs`` and ``outputs``, source's → served."""
    cases = json.loads(document)
    for case in cases["cases"]:
        for side in ("inputs", "outputs"):
            known = names.get(side, {})
            case[side] = {known.get(name, name): entry for name, entry in case[side].items()}
    return (json.dumps(cases, indent=1, sort_keys=True) + "\n").encode()
