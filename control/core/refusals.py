"""Why the management API says no (contract 2): one class for each HTTP status that control itself decides.

Its message carries no credential and no whole input.

    RefusalError
      InvalidError        400
      UnauthorizedError   401
      ForbiddenError      403
      NotFoundError       404
      ConflictError       409
      PreconditionError   412
      UnsupportedError    415
      ShareExceededError  429
      OverloadedError     503
"""


class RefusalError(Exception):
    """The request is refused. `message` names the field and what is allowed; `param` is the field's path."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class InvalidError(RefusalError):
    """The body, the query or the state does not allow it."""


class UnauthorizedError(RefusalError):
    """The credential is missing, malformed or unknown."""


class ForbiddenError(RefusalError):
    """The credential is known, but may not do this."""


class NotFoundError(RefusalError):
    """The thing named is unknown or deleted."""


class ConflictError(RefusalError):
    """Another call under the same `Idempotency-Key` stands against it."""


class PreconditionError(RefusalError):
    """The thing was changed since the caller read it (RFC 9110 13.1.1)."""


class UnsupportedError(RefusalError):
    """The body is not JSON by its content type."""


class ShareExceededError(RefusalError):
    """The workspace has as much under way as one may have; the message names the bound."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="share_exceeded")


class OverloadedError(RefusalError):
    """All workspaces together have as much under way as this process takes; the message names the bound."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="overloaded")
