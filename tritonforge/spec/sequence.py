"""How a model that remembers is served: what it keeps between the requests of one sequence."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tritonforge.spec.strict import Strict

Scalar = bool | int | float | str


class StateDecl(Strict):
    """The output that an input gets back with the sequence's next request. The short form is the output's name."""

    output: str
    """The output of the model that is its next state."""
    batch_axis: Annotated[int, Field(ge=0)] | None = None
    """The axis of the batch in both; when absent it is the first one, or the only dynamic one."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"output": value} if isinstance(value, str) else value


class SequenceSpec(Strict):
    """A model with states, served by Triton's sequence batcher with implicit state: clients send chunks in order under
    one sequence id, and Triton keeps the states between them. They are zero where a sequence starts."""

    states: dict[str, StateDecl] = {}
    """Inputs that get an output of the sequence's request before, by name: `{state: stateN}`."""
    context: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Inputs that have the last values of the chunk before in front (on their last axis), and how many: `{input: 64}`.
    The graph gets a state of its own for them."""
    constants: dict[str, Scalar | list[Scalar]] = {}
    """Inputs that have one value always, which becomes part of the graph: `{sr: 16000}`."""
    controls: dict[Literal["start", "end", "ready", "correlation"], str] = {}
    """Inputs by which the model itself is told where a sequence starts and ends, and its id."""
    idle_s: Annotated[float, Field(gt=0, le=1e9)] = 60.0
    """A sequence without a request for so long is dropped; it must start again."""
    candidates: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Sequences that one instance keeps at once; further ones wait until one of them ends."""
    requests: Annotated[int, Field(ge=2, le=1000)] = 6
    """Requests in each generated golden sequence."""

    @model_validator(mode="after")
    def _remembers(self) -> Self:
        if not (self.states or self.context or self.controls):
            raise ValueError("a sequence has `states`, a `context` or `controls`; without them leave `sequence` out")
        outputs = [state.output for state in self.states.values()]
        if len(set(outputs)) != len(outputs):
            raise ValueError("one output is the next state of two inputs")
        taken = [*self.states, *self.context, *self.constants, *self.controls.values()]
        twice = sorted({name for name in taken if taken.count(name) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' has two roles among `states`, `context`, `constants` and `controls`")
        return self
