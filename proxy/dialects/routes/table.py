"""Every route of the inference API whose use is counted, by its name."""

from proxy.dialects.routes import chat_completions, completions, embeddings, messages, model_server, responses
from proxy.dialects.routes.api import ApiRoute
from schemas.usage import RouteName

ROUTES: dict[RouteName, ApiRoute] = {
    each.name: each
    for each in (
        chat_completions.ROUTE,
        completions.ROUTE,
        embeddings.ROUTE,
        responses.ROUTE,
        messages.ROUTE,
        model_server.PREDICT,
        model_server.ASYNC_PREDICT,
        model_server.SYNC,
    )
}
