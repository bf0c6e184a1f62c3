"""What the stand-in backends share: the implicit state of sequences, which Triton's core keeps for native backends.

The core hands the state inputs of every request to a Python backend, too, but with the initial values always: it takes
new ones by a call (``TRITONBACKEND_StateNew``) that the Python backend does not make. So the values are kept here, by
correlation id. The sequence batcher brings a sequence to one instance for as long as it lasts, and never two of its
requests in one batch. Sources: core ``sequence_state.cc``, ``sequence_batch_scheduler.cc``; run on 24.10.
"""

import time

from standin_config import DTYPES

START, END = 1, 2
"""Flags of a request, as ``TRITONSERVER_REQUEST_FLAG_SEQUENCE_START`` and ``…_END``."""

_SLACK_S = 10.0


class States:
    """The states of the sequences of one instance."""

    def __init__(self, config, clock=time.monotonic):
        sequence = config["sequence_batching"]
        self.types = {state["output_name"]: state["data_type"] for state in sequence["state"]}
        self.inputs = {state["output_name"]: state["input_name"] for state in sequence["state"]}
        self.outputs = tuple(self.inputs)
        # After this time the core forgets a sequence: its id must start again.
        self.idle = int(sequence.get("max_sequence_idle_microseconds") or 0) / 1e6 + _SLACK_S
        self.clock = clock
        self.kept = {}

    def feeds(self, request, feeds):
        """The inputs of a request with its sequence's state; at a start the core's initial values stay."""
        known = None if request.flags() & START else self.kept.get(request.correlation_id())
        return feeds if known is None else {**feeds, **known[1]}

    def keep(self, request, results):
        """Take the state that a request leaves behind; with its last one the sequence is forgotten."""
        now = self.clock()
        for name in [name for name, (used, _) in self.kept.items() if now - used > self.idle]:
            del self.kept[name]
        for output in self.outputs:
            if results[output].dtype.name != DTYPES.get(self.types[output]):
                raise ValueError(
                    f"state '{output}': the configuration says {self.types[output]}, the model returned "
                    f"{results[output].dtype.name}"
                )
        name = request.correlation_id()
        if request.flags() & END:
            self.kept.pop(name, None)
        elif name:  # the direct strategy fills idle slots with requests that have none
            self.kept[name] = (now, {self.inputs[output]: results[output].copy() for output in self.outputs})


def states_of(config):
    """The states that a configuration asks for, or None."""
    return States(config) if (config.get("sequence_batching") or {}).get("state") else None
