"""What the roles that run apart share: an installation's services, and the topics they need before they begin.

Never begins a role on topics that are not as the settings say.
"""

import logging

from runtime import topics
from runtime.kafka import Kafka, KafkaAwayError
from runtime.outage import Outage
from runtime.settings import Settings
from tollgate.workplace import WorkplaceError

log = logging.getLogger(__name__)


async def topics_are_there(where: Kafka, loaded: Settings) -> None:
    """Create the topics that are missing, and wait while Kafka is away. Raises WorkplaceError at a mismatch."""
    outage = Outage("the start", log, of="Kafka", passes=lambda error: isinstance(error, KafkaAwayError))
    problems = await outage.ride_out(lambda: topics.ensure(where, topics.plans(loaded), create=True))
    if problems:
        raise WorkplaceError("; ".join(problems))
