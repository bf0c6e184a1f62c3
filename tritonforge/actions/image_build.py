"""Build an image from its folder, with the Docker engine of this machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tritonforge.actions.image import ImageContext
from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.triton.engine import connect, have_image, words

_TAG: Final = re.compile(r"[a-z0-9][a-z0-9._/-]*(:[0-9]+/[a-z0-9._/-]+)?(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?")
_KEPT: Final = 30
"""Lines of the build's output that an error shows."""


def build_image(context: ImageContext, tag: str, say: Callable[[str], None]) -> str:
    """Build the image, and give its id; ``say`` gets the engine's output, line by line.

    Raises:
        UsageError: ``tag`` is no name of an image.
        CheckFailed: a step of the Dockerfile fails, with what was said last.
        EnvironmentLacks: the docker package or an engine is absent, or a base cannot be had.
    """
    if not _TAG.fullmatch(tag):
        raise UsageError(f"'{tag}' is no name for an image", expected="NAME:TAG, such as registry.example.com/triton:1")
    client = connect()
    import docker.errors

    try:
        for image in (context.base, context.minimal):
            if image is not None:
                have_image(client, image, say)
        made: str | None = None
        said: list[str] = []
        for event in client.api.build(path=str(context.folder), tag=tag, rm=True, forcerm=True, decode=True):
            for line in str(event.get("stream", "")).splitlines():
                if line.strip():
                    said = [*said, line.rstrip()][-_KEPT:]
                    say(line.rstrip())
            if "error" in event:
                raise CheckFailed(
                    "the image does not build",
                    found=str(event["error"]).strip(),
                    details=said[-_KEPT:],
                    hint=_hint(str(event["error"]), said),
                )
            made = event.get("aux", {}).get("ID", made)
        return made or str(client.images.get(tag).id)
    except (docker.errors.DockerException, OSError) as error:
        raise EnvironmentLacks("the image cannot be built", found=words(error)) from None
    finally:
        client.close()


def _hint(error: str, said: list[str]) -> str | None:
    if "pip" in error:
        return "no index is reached from the build? Give the packages along: pip download -d wheels …, --wheels wheels"
    if any("this Triton has no backend" in line for line in said):
        return "name a base that has that backend by --base"
    return None
