"""Errors as OpenAI's clients know them: a status, and a body that names the parameter."""

import math
from typing import Any

from barkfast.errors import (
    BarkfastError,
    DeadlineExceeded,
    EngineClosed,
    EngineError,
    InputError,
    QueueFull,
    VoiceError,
)

# Status -> the type that the clients' libraries map to a class of their own.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """Ends a request with a status.

    Args:
        status: of HTTP.
        message: what was wrong, what was expected, what to do.
        code: a word for programs, such as "voice_not_found".
        param: the field of the request, if it is one's fault.
        retry_after: seconds until it is worth asking again.
    """

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    @property
    def outcome(self) -> str:
        """For the metrics: "invalid" by the client's fault, else "refused"."""
        return "invalid" if self.status < 429 else "refused"

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, where there is one."""
        return {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


def from_engine(error: BaseException, retry_after: float) -> ApiError:
    """What an error of the engine is to a client.

    Args:
        retry_after: seconds until a slot is likely to be free.
    """
    message = str(error)
    if isinstance(error, QueueFull):
        seconds = max(1, math.ceil(retry_after))
        return ApiError(429, f"the queue is full; ask again in {seconds} s", "queue_full", retry_after=retry_after)
    if isinstance(error, DeadlineExceeded):
        return ApiError(503, message, "deadline_exceeded", "deadline_s", retry_after)
    if isinstance(error, VoiceError):
        return ApiError(400, message, "voice_not_usable", "voice")
    if isinstance(error, InputError):
        return ApiError(400, message, "invalid_input", "input")
    if isinstance(error, EngineClosed):
        return ApiError(503, message, "draining", retry_after=retry_after)
    if isinstance(error, EngineError):
        return ApiError(503, message, "engine_dead", retry_after=retry_after)
    if isinstance(error, BarkfastError):
        return ApiError(500, message, "engine_error")
    # What nobody foresaw is logged where it is caught; its text may hold paths.
    return ApiError(500, "the server failed at this request; its log says how", "internal_error")
