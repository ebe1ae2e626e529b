"""What a host pulls, and whose signature it trusts: the file that the role pull_deploy writes."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stack.config.problems import problems_of
from stack.errors import InputError
from stack.yaml_input import load_mapping


class Settings(BaseModel):
    """Where from, what, by whom. Paths without a leading slash are inside the repository.

    One of branch and tags: the newest commit of a branch, or the newest tag (by version) that matches a pattern.
    not_before: until something was applied, only what comes after this commit is. attempts: how often a commit that
    cannot be deployed is tried. interval: seconds between two runs, for those who watch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1, pattern=r"^[^-]")
    branch: str | None = Field(default=None, min_length=1, pattern=r"^[^-]")
    tags: str | None = Field(default=None, pattern=r"^[^-*][^*]*\*?[^*]*$")
    allowed_signers: Path
    not_before: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    project: str = "."
    inventory: str = Field(min_length=1)
    host: str = Field(min_length=1)
    playbook: str = "ansible/playbooks/deploy.yml"
    vault_password_file: Path | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    state: Path
    metrics: Path
    attempts: int = Field(default=3, ge=1)
    interval: int = Field(default=900, ge=60)

    @model_validator(mode="after")
    def _one_kind(self) -> Settings:
        if (self.branch is None) == (self.tags is None):
            raise ValueError("either branch or tags says what is pulled")
        return self


def load(path: Path) -> Settings:
    """Raises InputError with every problem."""
    document = load_mapping(path)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise InputError(str(path), problems_of(error, Settings)) from None
