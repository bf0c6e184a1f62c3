"""Ensembles: models wired into one, checked along every wire before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tritonforge.errors import Place, SpecError
from tritonforge.repository.schema import Path_
from tritonforge.repository.wired import PlaceOf, WiredEnsemble, WiredStep
from tritonforge.repository.wires import Member
from tritonforge.repository.wiring import Wiring
from tritonforge.spec.models import EnsembleSpec


def order(ensembles: Mapping[str, EnsembleSpec], place: Callable[[str, Path_], Place] | None = None) -> list[str]:
    """The ensembles such that each comes after those that it runs.

    Raises:
        SpecError: ensembles run each other in a circle, which is named.
    """
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in done:
            return
        for index, step in enumerate(ensembles[name].steps):
            if step.model not in ensembles:
                continue
            if step.model in (*above, name):
                circle = (*above, name)[(*above, name).index(step.model) :]
                raise SpecError(
                    "ensembles run each other in a circle",
                    place=None if place is None else place(name, ("steps", index, "model")),
                    found=" → ".join((*circle, step.model)),
                )
            visit(step.model, (*above, name))
        done.append(name)

    for name in ensembles:
        visit(name, ())
    return done


def wire(name: str, spec: EnsembleSpec, members: Mapping[str, Member], place: PlaceOf) -> WiredEnsemble:
    """Wire an ensemble's steps by name, or as its maps say, and check every wire.

    ``members`` holds what the steps run, by public name.

    Raises:
        SpecError: a step's input is fed by nothing, an output comes from nowhere, a tensor has two producers, an input
            is used by nothing, types, shapes or batch sizes do not fit, or steps wait for each other.
    """
    return Wiring(name, spec, members, place).wired()


__all__ = ["Member", "WiredEnsemble", "WiredStep", "order", "wire"]
