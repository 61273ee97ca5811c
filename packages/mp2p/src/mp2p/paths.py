"""Where this user's key and contacts are kept."""

from __future__ import annotations

import warnings
from pathlib import Path

__all__ = ["default_classic_key_path", "default_contacts_path", "default_key_path", "default_status_folder"]


def default_key_path() -> Path:
    """Return where this user's own key is kept, whether or not it is there yet.

    The user's configuration folder: `~/.config/mp2p/key` on Linux, unless XDG_CONFIG_HOME says otherwise.
    """
    # Imported here because programs that name their key file need none of it.
    import platformdirs  # noqa: PLC0415

    return platformdirs.user_config_path("mp2p", appauthor=False) / "key"


def default_contacts_path() -> Path:
    """Return where this user's contacts are kept: `contacts.toml`, beside the key."""
    return default_key_path().with_name("contacts.toml")


def default_classic_key_path() -> Path:
    """Return where this user's key of the classic profile is kept: `classic-key`, beside the key of version 1."""
    return default_key_path().with_name("classic-key")


def default_status_folder() -> Path:
    """Return where running commands put the sockets that `mp2p top` asks.

    The user's runtime folder: `mp2p` in XDG_RUNTIME_DIR, usually `/run/user/UID`, on Linux.
    """
    import platformdirs  # noqa: PLC0415  (as above)

    with warnings.catch_warnings():
        # That the folder is not the system's own is no news to the user; whose it is, `mp2p.cli.status_socket` checks.
        warnings.simplefilter("ignore")
        return platformdirs.user_runtime_path("mp2p", appauthor=False)
