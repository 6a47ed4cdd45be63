"""How many bits a reply has in a round (compressed_sync.md): as agreed, or as link or budget allow."""

from dataclasses import dataclass

from vfl.codecs.choice import bits_for_budget, bits_for_link
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import CompressedSync


@dataclass(frozen=True)
class Sizes:
    """Of the messages of one round."""

    broadcast_bytes: int
    compressed_values: int
    """Values of a model that are written as codes."""
    rest_bytes: int
    """Of a reply, beside its codes."""


class ReplyBits:
    """Follows from what earlier rounds took; both numbers are kept in the checkpoint."""

    def __init__(self, spec: RoundsSpec, terms: CompressedSync, saved: dict[str, float]) -> None:
        self._spec, self._terms = spec, terms
        self.spent_bytes = saved.get("spent_bytes", 0.0)
        self.link_bytes_per_second = saved.get("link_bytes_per_second", 0.0)

    def of_round(self, number: int, sizes: Sizes) -> int:
        rounds = self._spec.rounds
        if self._terms.bits_from == "link" and self.link_bytes_per_second:
            rest = sizes.rest_bytes / self.link_bytes_per_second
            return bits_for_link(
                self.link_bytes_per_second, sizes.compressed_values, max(0.0, self._terms.link_seconds - rest)
            )
        if self._terms.bits_from == "budget":
            left, cohort = rounds.rounds - number + 1, self._spec.cohort
            fixed = left * cohort * (sizes.broadcast_bytes + sizes.rest_bytes)
            fixed += len(self._spec.roster.clients) * sizes.broadcast_bytes  # the published model
            spare = rounds.stop.gigabytes * 1e9 - self.spent_bytes - fixed
            return bits_for_budget(spare, left, sizes.compressed_values, cohort)
        return self._terms.reply_bits

    def closed(self, slowest_seconds: float, payload_bytes: int) -> None:
        """A round took so long from its dispatch, and so many bytes both ways.

        A client's training counts as travel, and so does waiting for others: the choice errs to fewer bits.
        """
        self.spent_bytes += payload_bytes
        if slowest_seconds > 0:
            self.link_bytes_per_second = payload_bytes / self._spec.cohort / slowest_seconds

    def saved(self) -> dict[str, float]:
        return {"spent_bytes": self.spent_bytes, "link_bytes_per_second": self.link_bytes_per_second}
