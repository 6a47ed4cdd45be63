"""A peer may propose so many jobs at once, and then as many as time brings."""

from parties.wire.rate_limit import Quota


def test_a_bucket_empties_and_refills_at_its_rate_and_never_overflows() -> None:
    at = 0.0
    quota = Quota(burst=2, per_second=0.5, clock=lambda: at)
    assert [quota.take() for _ in range(3)] == [True, True, False]
    at = 1.0
    assert not quota.take()
    at = 2.5
    assert [quota.take() for _ in range(2)] == [True, False]
    at = 1000.0
    assert [quota.take() for _ in range(3)] == [True, True, False]
