"""Numbers of bytes and seconds as people read them."""

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def readable_bytes(count: int) -> str:
    """12345678 as 12.3 MB."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 999.5 * unit else f"{count / unit:.0f} {name}"
    return f"{count} B"


def readable_seconds(seconds: float) -> str:
    """5025 as 1 h 24 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
