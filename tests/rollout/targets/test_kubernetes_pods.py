"""What a pod does in words, from what clusters said of pods: recorded, and cut to what counts."""

from __future__ import annotations

from typing import Any

import pytest

from tritonforge.rollout.targets.kubernetes_pods import pod_state, slot_words

READY = [{"type": "Ready", "status": "True"}]


def pod(**status: Any) -> dict[str, Any]:
    meta = {"name": "shop-blue-1", "uid": "u", "annotations": {"a": "b"}}
    if status.pop("leaving", False):
        meta["deletionTimestamp"] = "2026-11-21T10:00:00Z"  # type: ignore[assignment]
    return {"metadata": meta, "status": {"phase": "Pending", **status}}


def container(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "triton", "image": "triton:1", "imageID": "", "restartCount": 0, "state": state, **more}


RUNNING = {"running": {"startedAt": "2026-11-21T10:00:00Z"}}
CASES: dict[str, tuple[dict[str, Any], bool, bool, str]] = {
    "ready": (
        pod(phase="Running", conditions=READY, containerStatuses=[container(RUNNING)]),
        False,
        True,
        "running since 2026-11-21T10:00:00Z",
    ),
    "loading": (
        pod(phase="Running", containerStatuses=[container(RUNNING)]),
        False,
        False,
        "running, not ready yet, since 2026-11-21T10:00:00Z",
    ),
    "being pulled": (
        pod(containerStatuses=[container({"waiting": {"reason": "ErrImagePull", "message": "no such manifest"}})]),
        False,
        False,
        "ErrImagePull of triton:1: no such manifest",
    ),
    "no image": (
        pod(
            containerStatuses=[
                container({"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "triton:1"'}})
            ]
        ),
        True,
        False,
        'ImagePullBackOff: Back-off pulling image "triton:1"',
    ),
    "no image, nothing said": (
        pod(containerStatuses=[container({"waiting": {"reason": "ImagePullBackOff"}})]),
        True,
        False,
        "ImagePullBackOff of triton:1",
    ),
    "crashes": (
        pod(
            phase="Running",
            containerStatuses=[
                container(
                    {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}},
                    restartCount=2,
                    lastState={"terminated": {"exitCode": 1, "reason": "Error", "message": "failed to load 'plus'\n"}},
                )
            ],
        ),
        True,
        False,
        "CrashLoopBackOff; triton exited with 1: failed to load 'plus'",
    ),
    "crashes, and just runs again": (
        pod(
            phase="Running",
            containerStatuses=[
                container(RUNNING, restartCount=3, lastState={"terminated": {"exitCode": 1, "reason": "Error"}})
            ],
        ),
        True,
        False,
        "restarted 3 times; triton exited with 1",
    ),
    "crashed, and is about to run again": (
        pod(
            phase="Running",
            containerStatuses=[container({"terminated": {"exitCode": 1, "reason": "Error"}}, restartCount=1)],
        ),
        False,
        False,
        "about to be started again; triton exited with 1",
    ),
    "runs again": (
        pod(
            phase="Running",
            containerStatuses=[
                container(RUNNING, restartCount=1, lastState={"terminated": {"exitCode": 1, "reason": "Error"}})
            ],
        ),
        False,
        False,
        "running, not ready yet, since 2026-11-21T10:00:00Z; triton exited with 1",
    ),
    "killed for memory": (
        pod(
            phase="Running",
            containerStatuses=[
                container(
                    {"waiting": {"reason": "CrashLoopBackOff"}},
                    restartCount=3,
                    lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                )
            ],
        ),
        True,
        False,
        "CrashLoopBackOff; triton exited with 137 (OOMKilled)",
    ),
    "a Secret is missing": (
        pod(
            containerStatuses=[
                container({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}})
            ]
        ),
        True,
        False,
        'CreateContainerConfigError: secret "x" not found',
    ),
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        True,
        False,
        "Evicted; The node was low on resource: memory.",
    ),
    "not placed": (
        pod(
            conditions=[
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                }
            ]
        ),
        False,
        False,
        "no node takes it: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    ),
    "its init container fails": (
        pod(
            initContainerStatuses=[
                {
                    **container(
                        {"waiting": {"reason": "CrashLoopBackOff"}},
                        lastState={"terminated": {"exitCode": 2, "message": "checksum differs"}},
                    ),
                    "name": "fetch",
                }
            ],
            containerStatuses=[container({"waiting": {"reason": "PodInitializing"}})],
        ),
        True,
        False,
        "CrashLoopBackOff; fetch exited with 2: checksum differs",
    ),
    "ending": (
        pod(phase="Running", leaving=True, conditions=READY, containerStatuses=[container(RUNNING)]),
        False,
        False,
        "ending",
    ),
}


@pytest.mark.parametrize(("seen", "hopeless", "ready", "words"), CASES.values(), ids=CASES)
def test_a_pod_in_words_and_whether_it_can_become_ready(
    seen: dict[str, Any], hopeless: bool, ready: bool, words: str
) -> None:
    state = pod_state(seen)
    assert (state.words, state.hopeless, state.ready) == (words, hopeless, ready)


def test_a_pod_that_hangs_says_what_the_cluster_warned_of() -> None:
    hangs = pod(containerStatuses=[container({"waiting": {"reason": "ContainerCreating"}})])
    assert pod_state(hangs).words == "ContainerCreating"
    assert pod_state(hangs, "Unable to attach volumes").words == "ContainerCreating: Unable to attach volumes"


@pytest.mark.parametrize(
    ("said", "image"),
    [
        ("docker-pullable://nvcr.io/nvidia/tritonserver@sha256:ab", "nvcr.io/nvidia/tritonserver@sha256:ab"),
        ("nvcr.io/nvidia/tritonserver@sha256:ab", "nvcr.io/nvidia/tritonserver@sha256:ab"),
        ("docker://sha256:cd", "sha256:cd"),
        ("", None),
    ],
)
def test_the_image_that_really_runs(said: str, image: str | None) -> None:
    state = pod_state(pod(containerStatuses=[container(RUNNING, imageID=said)]))
    assert state.image == image


def test_only_what_was_started_counts_as_run() -> None:
    assert not pod_state(CASES["no image"][0]).ran
    assert not pod_state(CASES["not placed"][0]).ran
    assert pod_state(CASES["crashes"][0]).ran
    assert pod_state(CASES["ending"][0]).ran


def test_several_pods_are_told_by_those_that_are_not_ready() -> None:
    good, bad = pod_state(CASES["ready"][0]), pod_state(CASES["no image, nothing said"][0])
    assert slot_words([]) == "no pod yet"
    assert slot_words([good]) == "running since 2026-11-21T10:00:00Z"
    assert slot_words([good, good]) == "2 pods, running since 2026-11-21T10:00:00Z"
    assert slot_words([good, bad]) == "shop-blue-1: ImagePullBackOff of triton:1"
