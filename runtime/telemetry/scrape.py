"""``/metrics`` on a Litestar application; apart from what is measured, so that whoever counts needs no HTTP."""

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST

from runtime.telemetry.metrics import PATH, Telemetry


def handler(telemetry: Telemetry) -> HTTPRouteHandler:
    """Return ``/metrics``."""

    @get(PATH, include_in_schema=False)
    async def metrics() -> Response[bytes]:
        return Response(await telemetry.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    return metrics
