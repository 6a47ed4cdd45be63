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
    first_digits: int = DIGITS
    """How many digits the aggregator's first rows show."""
    first_epochs: int = 20
    network: str = "small_cnn"
    batch_rows: int = 32
    rate: float = 0.1
    rate_decay: float = 1.0
    hidden: tuple[int, ...] = ()
    norm: str = "none"
    clients_per_round: int = 0
    averaging: bool = False
    """Whether averaging with the same draws, without the part, runs beside it."""


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
        first_digits=5,
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
    "model-inversion": Mode(
        name="model-inversion",
        part="model_inversion",
        settings=('where = "both"', "refresh = 3", "leak_rows = 0.1"),
        shares={"test": 0.2},
        story=(
            "Three clients, each without some of the ten digits, two of them chosen in each round. A client finds "
            "images of the digits it lacks in the model it receives and trains on them beside its own; the "
            "aggregator finds images in each client's model and trains the mean on them. No image travels, real or "
            "found. At the end each client measures on its own rows how near found images come to them. With so few "
            "clients on digits averaging alone does about as well; where it does not is in the benchmarks."
        ),
        trained="clients and aggregator, with found rows",
        federated="accuracy",
        by_round="accuracy",
        rounds=10,
        local_epochs=3,
        network="mlp",
        hidden=(128, 64),
        norm="batch",
        rate=0.05,
        clients_per_round=2,
        averaging=True,
    ),
    "shared-data": Mode(
        name="shared-data",
        part="shared_data",
        settings=('rule = "feddu"', 'divergence = "clients"'),
        shares={"test": 0.2, "shared": 0.05},
        story=(
            "Three clients, each without some of the ten digits, train one network. The aggregator holds a few rows "
            "of its own with all digits, and moves each round's mean towards a copy trained on them, by a step that "
            "follows from how far the clients' digits lean and from how good the mean already is. Of the clients' "
            "digits it reads sums only."
        ),
        trained="clients, adjusted on shared rows",
        federated="accuracy",
        by_round="accuracy",
        rounds=10,
        averaging=True,
    ),
}
"""The choices of `vfl demo --mode`."""
