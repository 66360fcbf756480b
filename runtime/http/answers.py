"""What every answer of a port begins with, and how the port's own errors are written.

Pure.
"""

import http
import json

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in http.HTTPStatus
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def error_body(message: str) -> bytes:
    """Return the JSON of what is wrong with a request, as both APIs put it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return json.dumps({"error": error}).encode("ascii")
