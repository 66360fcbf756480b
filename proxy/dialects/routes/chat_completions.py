"""`POST /v1/chat/completions`: what all targets serve, translated where they speak something else."""

from proxy.dialects.routes.api import ApiRoute
from schemas.targets import Provider
from schemas.usage import RouteName

ROUTE = ApiRoute(name=RouteName.CHAT_COMPLETIONS, upstream_path="/chat/completions", providers=frozenset(Provider))
