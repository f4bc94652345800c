"""ARM without a phone: LiteRT for aarch64 in QEMU's user mode, compared and counted exactly."""
