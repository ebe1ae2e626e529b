"""Where the files of a model or an adapter come from."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from stack.config.fields import FilePath, Section


def _hub_id(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", value) or ".." in value:
        raise ValueError("a hub id is written organisation/model")
    return value


def _revision(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", value):
        raise ValueError("a revision is a full commit id of 40 hex digits; branches and tags move")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("a SHA-256 is 64 hex digits, as sha256sum prints them")
    return value


class Source(Section):
    """Where a model's files come from: exactly one of path, hub, archive, toy."""

    path: FilePath | None = None
    hub: Annotated[str, AfterValidator(_hub_id)] | None = None
    revision: Annotated[str, AfterValidator(_revision)] | None = None
    archive: FilePath | None = None
    sha256: Annotated[str, AfterValidator(_sha256)] | None = None
    toy: Literal[True] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        given = [key for key in ("path", "hub", "archive", "toy") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of path, hub, archive, toy; found {found}")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision belongs to hub")
        if self.sha256 is not None and self.archive is None:
            raise ValueError("sha256 belongs to archive; a hub states the checksums of its files itself")
        return self
