"""Numbers of bytes as people read them."""

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def readable_bytes(count: int) -> str:
    """12345678 as 12.3 MB."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 999.5 * unit else f"{count / unit:.0f} {name}"
    return f"{count} B"
