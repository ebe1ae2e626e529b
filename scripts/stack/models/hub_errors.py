"""What a hub's refusal means and what to do about it."""

from __future__ import annotations

import httpx2
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from stack.disk_space import is_full

TOKEN = "the token goes into a file that hub.token_file or --token-file names, or into HF_TOKEN"
KEPT = "What came is kept: the same command goes on from there."


def explain(error: Exception, repository: str, endpoint: str, *, has_token: bool) -> str:
    """One message: what, where, what to do."""
    what = f"{repository} could not be fetched from {endpoint}"
    if isinstance(error, HfHubHTTPError):
        return f"{what}: {_refusal(error, repository, endpoint, has_token)}"
    if isinstance(error, httpx2.HTTPError):
        cause = str(error) or type(error).__name__
        return (
            f"{what}: no answer, or it broke off ({cause}). {KEPT} Without a route to the hub, hub.mirror or"
            " HF_ENDPOINT names a mirror; docs/models.md says how to bring a model as an archive."
        )
    if isinstance(error, OSError) and is_full(error):
        return f"{what}: the disk is full ({error}). Make room, or set paths.state to a larger disk. {KEPT}"
    return f"{what}: {(str(error) or repr(error)).splitlines()[0]}. {KEPT}"


def _refusal(error: HfHubHTTPError, repository: str, endpoint: str, has_token: bool) -> str:
    status = error.response.status_code
    page = f"{endpoint}/{repository}"
    if isinstance(error, GatedRepoError):
        no_access = f"the model is gated, and this token's account has no access: ask for it at {page}"
        return no_access if has_token else f"the model is gated: accept its terms at {page}; {TOKEN}"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision; source.revision is a commit that the repository's history shows"
    private = "or this token may not see it" if has_token else f"or it is private; then {TOKEN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository ({status}), {private}"
    meanings = {
        401: f"the token was not accepted (401); {TOKEN}" if has_token else f"a token is needed (401); {TOKEN}",
        403: f"access is forbidden (403): this token lacks the right to read {repository}; {TOKEN}",
        404: f"there is no such repository or file (404), {private}",
        429: f"too many requests (429), also after waiting as long as the hub asked. {KEPT}",
    }
    return meanings.get(status, f"it answers {status}. {KEPT}")
