from tests.android_bench.conftest import _short_waits, adb_server, new_device

__all__ = ["_short_waits", "adb_server", "new_device"]  # fixtures: the in-test phone
