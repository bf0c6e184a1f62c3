"""The store that a team shares."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tritonforge.errors import UsageError
from tritonforge.spec.connection import SecretRef
from tritonforge.spec.strict import Strict

_SECRET: Final = ("secret", "token", "password", "passphrase", "account_key", "connection_string", "sas", "credential")
_NO_SECRET: Final = ("anon", "cloud", "google_default", "browser", "cache")
"""Ways of gcsfs to find credentials, which are given as its `token`."""
_REFERENCE: Final = set(SecretRef.model_fields)


class StoreSpec(Strict):
    """A remote tier of the store: what one machine built, others fetch instead of building it again."""

    remote: str
    """`s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `file:///FOLDER`; `TRITONFORGE_REMOTE_STORE` overrides it."""
    mode: Literal["read", "read-write"] = "read"
    """Whether what is built here is sent there, too; `TRITONFORGE_REMOTE_STORE_MODE` overrides it."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """How much longer than without it a build may take, in seconds."""
    options: dict[str, Any] = {}
    """Options of its fsspec file system (`endpoint_url`, …); secrets by reference: `{env: NAME}`, `{file: PATH}`."""
    signing_key: SecretRef | None = None
    """The team's key: records are signed with it (HMAC-SHA256), and others are refused."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        from tritonforge.artifact.remote.address import parse_address

        try:
            parse_address(self.remote)
        except UsageError as error:
            hint = "" if error.hint is None else f" ({error.hint})"
            raise ValueError(f"{error.message}: expected {error.expected}{hint}") from None
        _check(self.options, "options")
        return self


def reference(value: Any) -> SecretRef | None:
    """The reference that a value of `options` is, if it is one."""
    if isinstance(value, dict) and value and set(value) <= _REFERENCE:
        try:
            return SecretRef.model_validate(value)
        except ValidationError:
            return None
    return None


def _check(value: Any, name: str) -> None:
    """Refuse a secret that stands in the spec."""
    if reference(value) is not None:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            secret = key.lower() == "key" or any(part in key.lower() for part in _SECRET)
            if secret and isinstance(item, str) and item not in _NO_SECRET:
                raise ValueError(f"`{name}.{key}` is a secret: give it by reference, {{env: NAME}} or {{file: PATH}}")
            _check(item, f"{name}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{name}[{index}]")
