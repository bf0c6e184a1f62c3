"""Images by what they are: a digest or an id, so that a tag that moves changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.engine import have_image

PROXY_IMAGE: Final = "haproxy:3.0-alpine@sha256:7c8dac975b9def049d6585b7efe865486acaa7b6ec5e74eec45f08fde8bb2ad4"
"""The official image of HAProxy 3.0.26 (a long-term release), for all architectures."""


def resolve(client: Any, image: str, say: Callable[[str], None] = lambda text: None) -> str:
    """``image`` as its digest where it came from a registry, else as its id; pulled when absent.

    Raises:
        EnvironmentLacks: it cannot be had.
    """
    if image.startswith("sha256:"):
        require(client, image)
        return image
    have_image(client, image, say)
    if "@sha256:" in image:
        return image
    found = client.images.get(image)
    repository = _familiar(image)
    for reference in found.attrs.get("RepoDigests") or []:
        if _familiar(str(reference)) == repository:
            return str(reference)
    return str(found.id)


def require(client: Any, image: str, say: Callable[[str], None] = lambda text: None) -> None:
    """Have an image that :func:`resolve` named; one with a digest is pulled again when it is gone.

    Raises:
        EnvironmentLacks: it cannot be had.
    """
    import docker.errors

    if not image.startswith("sha256:"):
        have_image(client, image, say)
        return
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        raise EnvironmentLacks(
            "the image is not in the Docker engine any more, and has no name to pull it by",
            found=image,
            hint="load or build it again (`docker load`), or deploy with another `image`",
        ) from None


def _familiar(reference: str) -> str:
    """The repository as Docker shows it, without tag and digest."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    for prefix in ("docker.io/", "index.docker.io/"):
        name = name.removeprefix(prefix)
    return name.removeprefix("library/")
