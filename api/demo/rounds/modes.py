"""What the demonstration of rounds can show: one part of a round each, with the rows and the network it needs."""

from dataclasses import dataclass

from api.demo.rounds.tables import DIGITS


@dataclass(frozen=True)
class Mode:
    """One published system on digits."""

    name: str
    part: str
    """A name of `rounds.parts`."""
    settings: tuple[str, ...]
    """Lines of [rounds.<part>]."""
    shares: dict[str, float]
    """Of all rows, what the aggregator holds, by use."""
    story: str
    """Who holds what and what travels, for the report."""
    trained: str
    """Whose accuracy `federated` is, for the first line of the table."""
    federated: str
    """The aggregator's metric that is that accuracy."""
    by_round: str
    """Its series with that accuracy after each round."""
    rounds: int
    local_epochs: int = 1
    known: int = DIGITS
    """How many digits the aggregator's first rows show."""
    first_epochs: int = 20
    network: str = "small_cnn"
    batch_rows: int = 32
    rate: float = 0.1
    rate_decay: float = 1.0


MODES: dict[str, Mode] = {
    "backbone-decoder": Mode(
        name="backbone-decoder",
        part="backbone_decoder",
        settings=('cut = "features"', 'derive = "student"', 'carry_back = "best"', "carry_each_round = true"),
        shares={"test": 0.2, "validation": 0.05, "public": 0.15, "first": 0.25},
        story=(
            "The aggregator has a model that knows the digits 0 to 4 only. It derives a smaller second model from it "
            "and sends its backbone to each client once. The clients, each without some of the ten digits, train "
            "nothing but the decoder behind it, and only decoders travel. The trained decoder is carried back into the "
            "aggregator's own model."
        ),
        trained="aggregator's model, after the rounds",
        federated="first_model_after",
        by_round="first_model_accuracy",
        rounds=15,
        local_epochs=2,
        known=5,
        rate_decay=0.95,
    ),
    "compressed-sync": Mode(
        name="compressed-sync",
        part="compressed_sync",
        settings=("stored_bits = 4", "reply_bits = 4"),
        shares={"test": 0.2},
        story=(
            "Three clients, each without some of the ten digits, train one network. Between rounds each keeps it in "
            "4 bits per weight, and in 4 bits per weight the changes travel, both ways, at their real packed size."
        ),
        trained="aggregator and clients, 4 bits per weight",
        federated="accuracy",
        by_round="accuracy",
        rounds=20,
    ),
}
"""The choices of `vfl demo --mode`."""
