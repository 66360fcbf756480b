"""Every route of the inference API whose use is counted, by its name."""

from proxy.dialects.routes import chat_completions, completions, embeddings, messages, responses
from proxy.dialects.routes.api import ApiRoute
from schemas.usage import RouteName

ROUTES: dict[RouteName, ApiRoute] = {
    each.ROUTE.name: each.ROUTE for each in (chat_completions, completions, embeddings, responses, messages)
}
