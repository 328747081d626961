"""What the Hugging Face Hub says no with, in words of what to do."""

from __future__ import annotations

from huggingface_hub import errors
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

HUB_ERRORS = (errors.HTTPError, HFValidationError, OfflineModeIsEnabled, OSError)  # type: ignore[attr-defined]
"""All that a call of HfApi raises where the Hub is out of reach or refuses; a lost connection is an
HTTPError without a response, and no OSError."""


def refusal(error: BaseException) -> str:
    """Why the Hub was not reached or refused, and the fix."""
    if isinstance(error, LocalTokenNotFoundError):
        return "got no token of the Hub, must be logged in: `hf auth login`, or set HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        return "the Hub is switched off; unset HF_HUB_OFFLINE"
    if isinstance(error, HFValidationError):
        return f"got no name of a repository ({error}), must be user/name"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return "the Hub does not know the token (401); log in again with `hf auth login`"
        if status == 403:
            return "the token may not write there (403); take one that may, or a name of yours"
        return f"the Hub answered {status}: {error.server_message or str(error).splitlines()[0]}"
    return f"the Hub is out of reach ({error}); is there a network? behind a proxy, set HTTPS_PROXY"
