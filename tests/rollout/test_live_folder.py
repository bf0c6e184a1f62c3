"""What of a release goes into a live folder."""

from __future__ import annotations

from tritonforge.rollout.live_folder import layout_of


def test_versions_that_a_release_does_not_serve_stay_out() -> None:
    """A repository that was taken in may hold versions that its policy leaves out, and folders that only look so."""
    entry = {"folder": "net", "kind": "model", "version": 3}
    paths = ("1/w", "3/w", "3/deep/x", "01/old", "labels.txt", "config.pbtxt")
    files = {f"models/net/{path}": {"sha256": path, "size": 1} for path in paths}
    found = layout_of([entry], files, ["models/net/3"], {"net": 'backend: "mine" # as given'})["net"]
    assert list(found.versions) == [3]
    assert set(found.versions[3]) == {"w", "deep/x"}
    assert set(found.files) == {"01/old", "labels.txt"}
    assert list(found.message.version_policy.specific.versions) == [3]
