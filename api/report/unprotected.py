"""What a job does not hide or guard, in plain sentences, from what was agreed and what was planned."""

from collections.abc import Iterator

from api.client import JsonObject


def of_training(specification: JsonObject, plan: JsonObject) -> Iterator[str]:
    """Of a label party and feature parties. `plan` is empty at a party that has not looked at the job yet."""
    scheme, embeddings = specification["encryption"]["scheme"], specification["model"]["layout"] == "embeddings"
    brought = "an embedding coordinate" if embeddings else "a continuous column"
    if scheme == "none":
        yield (
            "Scheme none hides nothing from the label party: it read every "
            f"{'embedding' if embeddings else 'standardised value'} of the feature party."
        )
    elif plan:
        yield (
            f"The label party read {plan['opened_per_step']} noisy gradient sums per step. If it knew every row's "
            f"error, it could reconstruct {min(plan['rho'], 1):.1%} of the variance of {brought} "
            f"(rho {plan['rho']:.3g})."
        )
        yield "The label party read a noisy score of every held-out row."
        if not plan["guards_deviating_label_party"]:
            yield (
                "Nothing is claimed against a label party that deviates from the protocol: one key opens up to "
                f"{plan['values_per_key']} values, so that it might find the key and all that was encrypted under it."
            )
    if specification["protection"] is not None:
        noise = specification["protection"]["cut_noise"]
        how = "nothing hides them" if noise["method"] == "none" else f"noise of deviation {noise['scale']:g} is on them"
        yield (
            "The feature party read label-bearing errors for every row and step: labels can be inferred from them, and "
            f"protection.cut_noise is {noise['method']}, so that {how}."
        )


def of_rounds(specification: JsonObject) -> Iterator[str]:
    """Of an aggregator and its clients."""
    rounds = specification["rounds"]
    yield "Every client read the shared model, and what can be inferred from it about the others' rows."
    if rounds["secure_sum"]:
        yield (
            "The aggregator read sums over the clients of a round. Where all but one of them work together, what they "
            "subtract is the last one's update."
        )
    else:
        yield (
            "The aggregator read each client's trained parameters in every round, one client at a time: rows can be "
            "inferred from them, and sending fewer bits or a smaller part of the model is no protection."
        )
    if "backbone_decoder" in rounds["parts"]:
        yield "Every client holds the second model whole and keeps it: it can use it after the job and alone."
    if "model_inversion" in rounds["parts"]:
        yield (
            "The aggregator finds rows in each client's model: what it finds can resemble the client's own. The leak "
            "meter says how near, for this run; it is no bound."
        )
    limit = "is off here; where it is on it" if not rounds["reply_norm_limit"] else "is on: it"
    yield (
        f"Nothing tells honest rows from poisoned ones. reply_norm_limit {limit} bounds how far "
        "one reply can move the model, not where to. One organisation behind several clients counts as several."
    )


UNSIGNED = "The messages of this job were not signed: it ran between servers that trust the machine they share."
