"""What one request holds of the day's counters until it ends (contract 3.1)."""

import msgspec

from domain.costs import UnitCost
from proxy.limits.counters import DayCounter
from proxy.limits.estimate import TokenCounts


class DayReservation(msgspec.Struct, eq=False):
    """One request and its estimated tokens. It ends once, by `settle` or `release`; what comes later is ignored."""

    estimate: int
    output: int
    """What of the estimate is for the answer."""
    unit_cost: UnitCost | None
    """What a request and its tokens cost, by the prices at admission; None where there are none."""
    cost: int
    """Of the estimate."""
    root: str
    """The last charged group, whose lane the event will lie in."""
    counters: tuple[DayCounter, ...]
    ended: bool = False

    def cost_of(self, tokens: TokenCounts) -> int:
        """Return what a request with these tokens counts against limits of the type COST."""
        return 0 if self.unit_cost is None else self.unit_cost.of(1, *tokens.by_price)
