"""ARM without a phone: LiteRT for aarch64 in QEMU's user mode, its instructions counted."""
