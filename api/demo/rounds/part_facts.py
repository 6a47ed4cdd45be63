"""What a part did in a demonstration of rounds, as lines for the screen and the report."""

from collections.abc import Iterator

from api.client import JsonObject


def part_facts(result: JsonObject) -> list[tuple[str, str]]:
    """(name, sentence); none for a part that measures nothing of its kind."""
    return [
        *_steps(result["part"]["by_round"]),
        *_classes(result["part"]["clients"]),
        *_leaks(result["part"]["clients"]),
    ]


def _steps(by_round: dict[str, list[float]]) -> Iterator[tuple[str, str]]:
    """Of shared-data: how far each round's mean moved towards the copy trained on shared rows."""
    if "shared_step" in by_round:
        yield "step", "by round: " + " ".join(f"{step:.2f}" for step in by_round["shared_step"])
        undone = sum(by_round.get("shared_undone", []))
        yield "undone", f"{undone:.0f} of {len(by_round['shared_step'])} steps, which harmed on held-out shared rows"


def _classes(clients: dict[str, JsonObject]) -> Iterator[tuple[str, str]]:
    """Of model-inversion: how even each client's classes became, in its last round."""
    for name, client in clients.items():
        last = {measure: values[-1] for measure, values in client["by_round"].items() if values}
        if "entropy_before" in last:
            yield "classes", f"{name}: evenness {last['entropy_before']:.2f} -> {last['entropy_after']:.2f}"
            rows, share = last["inverted_rows"], last["inverted_kept"]
            yield "classes", f"with {rows:.0f} rows drawn from those found; {share:.0%} passed the filter"


def _leaks(clients: dict[str, JsonObject]) -> Iterator[tuple[str, str]]:
    """Of model-inversion: the worst client of the leak meter."""
    for where, place in (("pool", "found at clients"), ("reply", "in a client's reply")):
        distances = [
            distance for client in clients.values() if (distance := client["metrics"].get(f"leak_{where}_lowest"))
        ]
        if distances:
            how_far = f"{min(distances):.2f} times as far from its own as is usual"
            yield "leak meter", f"rows {place} lie {how_far} (5th percentile, worst client)"
    attack = [client["metrics"].get("membership_auc_published") for client in clients.values()]
    aucs = [auc for auc in attack if auc is not None]
    if aucs:
        yield (
            "leak meter",
            f"membership attack on the final model: AUC {min(aucs):.2f} to {max(aucs):.2f}, 0.5 is guessing",
        )
