"""How many bits a link or a budget can carry (compressed_sync.md): the most of 1 to 8 that fit, never less than one."""

from vfl.codecs.rotation import ROTATION


def bits_for_link(bytes_per_second: float, parameters: int, seconds: float) -> int:
    """For one message of `parameters` values in at most `seconds` on a link as fast as was measured."""
    return _most_bits(parameters, bytes_per_second * seconds)


def bits_for_budget(bytes_left: float, rounds_left: int, parameters: int, messages_per_round: int = 1) -> int:
    """For all messages of all rounds to come. Where even one bit is too much, the job's byte limit ends it."""
    return _most_bits(parameters, bytes_left / max(1, rounds_left * messages_per_round))


def _most_bits(parameters: int, bytes_per_message: float) -> int:
    fitting = [bits for bits in ROTATION.widths if ROTATION.body_bytes(parameters, bits) <= bytes_per_message]
    return max(fitting, default=ROTATION.widths[0])
