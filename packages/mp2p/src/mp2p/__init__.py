"""One device calls another, encrypted, without a broker: the batteries-included package.

Everything public of `mp2p_core` and `mp2p_rpc` (nodes serve, peers are called), the transports for IPv4 and
IPv6 multicast installed beside it, file transfer (`mp2p.transfer`), and one convenience: `open_node()` without
a key uses this user's own. The `mp2p` command lives in `mp2p.cli`; importing this package loads nothing of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mp2p.api import *  # noqa: F403 - all that it names in __all__
else:
    # The command imports this package too, and answers `--version` before the API would have been loaded.

    def __getattr__(name: str) -> Any:
        """Load the public names when the first is asked for."""
        api = import_module("mp2p.api")
        globals().update({each: getattr(api, each) for each in api.__all__}, __all__=api.__all__)
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        """List the public names also before they are loaded."""
        return sorted({*globals(), *import_module("mp2p.api").__all__})
