"""The steps of an ensemble become a graph: every wire has its ends, every step its inputs, every tensor one producer.

Source of the rules: Triton ``docs/user_guide/ensemble_models.md``; core ``ValidateEnsembleSchedulingConfig`` (the
graph) and ``ensemble_utils.cc`` (types, shapes, batch sizes, decoupled models).
"""

from __future__ import annotations

from collections.abc import Mapping

from tritonforge.artifact.signature import Signature, Tensor, parse_type
from tritonforge.errors import SpecError, did_you_mean
from tritonforge.repository.schema import Path_
from tritonforge.repository.wired import PlaceOf, WiredEnsemble, WiredStep
from tritonforge.repository.wires import BATCH, Axes, End, Member, Wire, agree, described, own_axes, unified
from tritonforge.spec.models import EnsembleSpec, StepSpec, TensorDecl


class Wiring:
    """One ensemble while its wires are drawn: outputs first, then inputs, then the checks of the whole."""

    def __init__(self, name: str, spec: EnsembleSpec, members: Mapping[str, Member], place: PlaceOf) -> None:
        self.name, self.spec, self.members, self.place = name, spec, members, place
        self.inputs = _declared(spec.inputs)
        self.outputs = _declared(spec.outputs)
        self.wires: dict[str, Wire] = {}
        self.maps: list[tuple[dict[str, str], dict[str, str]]] = []
        self.unused: list[str] = []

    def wired(self) -> WiredEnsemble:
        for index, step in enumerate(self.spec.steps):
            self.add_outputs(index, step, self.member(index, step))
        for index, step in enumerate(self.spec.steps):
            self.add_inputs(index, step, self.member(index, step))
        self.complete()
        self.reachable()
        largest = self.largest_batch()
        for tensor in self.wires.values():
            agree(tensor, self.name)
        signature = self.signature(largest)
        steps = tuple(self.step(index, step) for index, step in enumerate(self.spec.steps))
        decoupled = any(self.member(index, step).decoupled for index, step in enumerate(self.spec.steps))
        return WiredEnsemble(
            self.name,
            signature,
            largest,
            steps,
            decoupled,
            tuple(sorted(set(self.unused))),
            self.warnings(),
            self.place(("steps",)),
        )

    def member(self, index: int, step: StepSpec) -> Member:
        found = self.members.get(step.model)
        if found is None:
            hint = did_you_mean(step.model, self.members)
            raise SpecError(f"there is no model '{step.model}'", place=self.place(("steps", index, "model")), hint=hint)
        return found

    def end(self, index: int, member: Member, tensor: Tensor, side: str) -> End:
        path: Path_ = ("steps", index, side, tensor.name)
        axes = member.axes(tensor)
        return End(index, member.public_name, tensor.name, tensor.datatype, axes, tensor.optional, self.place(path))

    def add_outputs(self, index: int, step: StepSpec, member: Member) -> None:
        self.known(index, step.outputs, "outputs", [tensor.name for tensor in member.signature.outputs], member)
        mapped: dict[str, str] = {}
        for tensor in member.signature.outputs:
            name = step.outputs.get(tensor.name, tensor.name)
            explicit = tensor.name in step.outputs
            end = self.end(index, member, tensor, "outputs")
            existing = self.wires.get(name)
            taken = existing is not None and existing.producer is not None
            if (taken or name in self.inputs) and not explicit and not self.wanted_from(index, name):
                # An output that nobody asked for by this step must not forbid the name to another.
                self.unused.append(f"{member.public_name}.{tensor.name}")
                continue
            if name in self.inputs:
                raise SpecError(
                    f"'{name}' is an input of ensemble '{self.name}' and is produced by '{member.public_name}' too",
                    place=end.place,
                    hint=f"rename it in this step: `outputs: {{{tensor.name}: ANOTHER_NAME}}`",
                )
            if existing is not None and existing.producer is not None:
                raise SpecError(
                    f"'{name}' is produced twice in ensemble '{self.name}'",
                    place=end.place,
                    found=f"by {existing.producer} and by {end}",
                    hint=f"rename one in its step: `outputs: {{{tensor.name}: ANOTHER_NAME}}`",
                )
            self.wires.setdefault(name, Wire(name)).producer = end
            mapped[tensor.name] = name
        self.maps.append(({}, mapped))

    def wanted_from(self, index: int, name: str) -> bool:
        """Whether a tensor is an output of the ensemble or an input of another step, so that two producers clash."""
        if name in self.outputs:
            return True
        for number, step in enumerate(self.spec.steps):
            if number != index and name in {
                step.inputs.get(tensor.name, tensor.name) for tensor in self.member(number, step).signature.inputs
            }:
                return True
        return False

    def add_inputs(self, index: int, step: StepSpec, member: Member) -> None:
        self.known(index, step.inputs, "inputs", [tensor.name for tensor in member.signature.inputs], member)
        for tensor in member.signature.inputs:
            name = step.inputs.get(tensor.name, tensor.name)
            explicit = tensor.name in step.inputs
            end = self.end(index, member, tensor, "inputs")
            fed = name in self.inputs or (name in self.wires and self.wires[name].producer is not None)
            if not fed:
                if tensor.optional and not explicit:
                    continue
                available = [*self.inputs, *(n for n, found in self.wires.items() if found.producer is not None)]
                raise SpecError(
                    f"nothing feeds input '{tensor.name}' of '{member.public_name}' in ensemble '{self.name}'",
                    place=end.place,
                    expected=f"a tensor '{name}': an input of the ensemble or an output of another step",
                    hint=did_you_mean(name, available) or f"map it: `inputs: {{{tensor.name}: TENSOR}}`",
                )
            self.wires.setdefault(name, Wire(name)).consumers.append(end)
            self.maps[index][0][tensor.name] = name
        if not self.maps[index][0]:
            raise SpecError(
                f"'{member.public_name}' is fed by nothing in ensemble '{self.name}'",
                place=self.place(("steps", index)),
            )

    def known(self, index: int, given: Mapping[str, str], side: str, names: list[str], member: Member) -> None:
        for name in given:
            if name not in names:
                raise SpecError(
                    f"'{member.public_name}' has no {side[:-1]} '{name}'",
                    place=self.place(("steps", index, side, name)),
                    hint=did_you_mean(name, names),
                )

    def complete(self) -> None:
        """The ensemble's own inputs are used and its outputs produced; what nothing takes is left out."""
        for name in self.inputs:
            if name not in self.wires:
                known = sorted({t.name for member in self.members.values() for t in member.signature.inputs})
                raise SpecError(
                    f"input '{name}' of ensemble '{self.name}' is used by no step",
                    place=self.place(("inputs", name)),
                    hint=did_you_mean(name, known),
                )
            consumers = self.wires[name].consumers
            declared = self.inputs[name]
            required = next((end for end in consumers if not end.optional), None)
            if declared is not None and declared.optional and required is not None:
                raise SpecError(
                    f"input '{name}' of ensemble '{self.name}' cannot be optional: a step needs it",
                    place=self.place(("inputs", name)),
                    found=str(required),
                )
        produced = [name for name, found in self.wires.items() if found.producer is not None]
        for name in self.outputs:
            if name not in produced:
                raise SpecError(
                    f"output '{name}' of ensemble '{self.name}' is produced by no step",
                    place=self.place(("outputs", name)),
                    hint=did_you_mean(name, produced),
                )
        for name in produced:
            found = self.wires[name]
            if not found.consumers and name not in self.outputs and found.producer is not None:
                # Triton refuses tensors that nothing uses ("is unused in ensemble"), so it stays out of the map.
                self.unused.append(f"{found.producer.owner}.{found.producer.tensor}")
                del self.maps[found.producer.step][1][found.producer.tensor]
                del self.wires[name]
        for index, (_, outputs) in enumerate(self.maps):
            if not outputs:
                raise SpecError(
                    f"step {index + 1} of ensemble '{self.name}' does nothing: none of its outputs is used",
                    place=self.place(("steps", index)),
                    hint="remove the step, or name one of its outputs in a later step or among the ensemble's outputs",
                )

    def reachable(self) -> None:
        """Every step gets its inputs in the end: none waits for itself, however indirectly."""
        # Each tensor with the decoupled step that it stems from: those of two such steps come in unequal numbers, and
        # Triton refuses a step that takes both.
        ready: dict[str, int | None] = dict.fromkeys(self.inputs)
        left = list(range(len(self.maps)))
        while left:
            able = [index for index in left if set(self.maps[index][0].values()) <= ready.keys()]
            if not able:
                first = left[0]
                chain = " and ".join(f"step {index + 1} ('{self.spec.steps[index].model}')" for index in left)
                missing = sorted(set(self.maps[first][0].values()) - ready.keys())
                raise SpecError(
                    f"steps of ensemble '{self.name}' wait for each other",
                    place=self.place(("steps", first)),
                    found=f"{chain}; the first of them waits for " + ", ".join(f"'{name}'" for name in missing),
                )
            for index in able:
                stems = {ready[name] for name in self.maps[index][0].values()}
                if len(stems) > 1:
                    raise SpecError(
                        f"a step of ensemble '{self.name}' takes tensors of different decoupled models",
                        place=self.place(("steps", index)),
                        found=", ".join("the request" if s is None else self.spec.steps[s].model for s in stems),
                    )
                stem = index if self.member(index, self.spec.steps[index]).decoupled else stems.pop()
                ready.update(dict.fromkeys(self.maps[index][1].values(), stem))
                left.remove(index)

    def warnings(self) -> tuple[str, ...]:
        """Outputs that are inputs of a later step too.

        A request for such an output alone prunes the later step, and with it, by a defect of core's pruning
        (``EnsembleContext``'s backward traversal), the step that makes the output: "unexpected deadlock".
        """
        return tuple(
            f"'{name}' is an output of '{self.name}' and feeds '{found.owner}' too: Triton fails requests that ask for "
            f"'{name}' without any output that depends on it"
            for name in self.outputs
            for found in self.wires[name].consumers[:1]
            if found.step >= 0
        )

    def largest_batch(self) -> int:
        names = sorted({step.model for step in self.spec.steps})
        sizes = {name: self.members[name].max_batch_size for name in names}
        able = {name: size for name, size in sizes.items() if size > 0}
        stated = self.spec.max_batch_size
        if stated is None:
            return min(able.values()) if len(able) == len(sizes) else 0
        if stated > 0 and not able:
            raise SpecError(
                f"ensemble '{self.name}' cannot batch: none of its members does",
                place=self.place(("max_batch_size",)),
                expected="max_batch_size: 0",
                found=str(stated),
            )
        if able and stated > min(able.values()):
            raise SpecError(
                f"ensemble '{self.name}' takes larger batches than its members",
                place=self.place(("max_batch_size",)),
                expected=f"at most {min(able.values())}",
                found=str(stated),
                details=["members: " + described(self.members, names)],
            )
        return stated

    def signature(self, largest: int) -> Signature:
        for side, declared in (("inputs", self.inputs), ("outputs", self.outputs)):
            for name, declaration in declared.items():
                self.declare(side, name, declaration, largest)
        axes = Axes(self.wires.values())

        def tensor(name: str, declaration: TensorDecl | None) -> Tensor:
            found = self.wires[name]
            optional = name in self.inputs and all(end.optional for end in found.consumers if end.step >= 0)
            optional = optional and (declaration is None or declaration.optional)
            return Tensor(name, found.ends[0].datatype, unified(found, axes, largest > 0), optional)

        return Signature(
            tuple(tensor(name, declaration) for name, declaration in self.inputs.items()),
            tuple(tensor(name, declaration) for name, declaration in self.outputs.items()),
            largest > 0,
        )

    def declare(self, side: str, name: str, declaration: TensorDecl | None, largest: int) -> None:
        """Compare what the ensemble says of its own tensor, and the axis that it batches by, with the wire."""
        found = self.wires[name]
        first = found.ends[0]
        datatype, axes = first.datatype, first.axes
        if declaration is not None:
            datatype, item = parse_type(declaration.type)
            dims = own_axes(name, item or (1,))
            batch = largest > 0 or (BATCH in axes and len(dims) == len(axes) - 1)
            axes = (BATCH, *dims) if batch else dims
        elif largest > 0:
            axes = (BATCH, *(f"?{name}.{position}" for position in range(1, len(axes))))
        own = End(-1, self.name, name, datatype, axes, False, self.place((side, name)))
        found.consumers.append(own)
        agree(found, self.name)

    def step(self, index: int, step: StepSpec) -> WiredStep:
        member = self.member(index, step)
        version = step.version if isinstance(step.version, int) else member.version if step.version is None else -1
        inputs, outputs = self.maps[index]
        return WiredStep(member.public_name, member.folder, version, inputs, outputs)


def _declared(tensors: Mapping[str, TensorDecl | None] | list[str]) -> dict[str, TensorDecl | None]:
    return dict.fromkeys(tensors) if isinstance(tensors, list) else dict(tensors)
