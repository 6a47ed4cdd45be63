"""When a job of rounds ends before its last round (R0.6)."""

from vfl.spec.rounds_settings import Stop


def reason_to_stop(stop: Stop, accuracies: list[float], payload_bytes: float) -> str:
    """The first condition that holds after a round, as a sentence; empty when none does.

    `accuracies` are global test accuracies by round, `payload_bytes` what all parties have sent so far.
    """
    if stop.target and accuracies and accuracies[-1] >= stop.target:
        return f"target accuracy {stop.target:g} reached"
    if stop.plateau and len(accuracies) > stop.plateau:
        best_before = max(accuracies[: -stop.plateau])
        if max(accuracies[-stop.plateau :]) <= best_before + stop.gain:
            return f"no gain above {stop.gain:g} in {stop.plateau} evaluations"
    if stop.gigabytes and payload_bytes >= stop.gigabytes * 1e9:
        return f"{stop.gigabytes:g} GB are spent"
    return ""
