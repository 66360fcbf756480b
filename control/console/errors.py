"""Answers what goes wrong at the console with a page that says what to do.

Never names a thing of another workspace.
"""

from typing import Any
from urllib.parse import urlencode

from litestar import Response

from control.api import errors
from control.console.pages import Pages, moved
from control.core.refusals import UnauthorizedError
from schemas.api import ErrorBody

_TITLES = {
    400: "That cannot be done",
    401: "Sign in",
    403: "Not allowed",
    404: "Nothing here",
    412: "Changed meanwhile",
    503: "The database is away",
}


def handlers(templates: Pages) -> dict[int | type[Exception], Any]:
    """Return the handlers of the console: what the management API would answer, as a page."""

    def refuse_to_sit(request: Any, _: UnauthorizedError) -> Response[Any]:
        if request.headers.get("hx-request"):  # a part of a page: the whole page is to go to sign-in
            return Response(None, status_code=401, headers={"hx-redirect": "/console/sign-in"})
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        come_back = urlencode({"next": asked}) if request.method == "GET" else ""
        return moved(f"/console/sign-in?{come_back}")

    def page_of(answer: Any) -> Any:
        def shown(request: Any, error: Any) -> Response[Any]:
            said: Response[ErrorBody] = answer(request, error)
            status = said.status_code or 500
            title = _TITLES.get(status, "That failed")
            page = templates.page(
                request, "problem.html", status=status, title=title, message=said.content.error.message
            )
            page.headers |= {name: said.headers[name] for name in ("allow", "retry-after") if name in said.headers}
            return page

        return shown

    own = {kind: page_of(answer) for kind, answer in errors.EXCEPTION_HANDLERS.items()}
    return {**own, UnauthorizedError: refuse_to_sit}
