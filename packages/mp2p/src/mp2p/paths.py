"""Where this user's key and contacts are kept."""

from __future__ import annotations

from pathlib import Path

from mp2p_core import KeyFileError

__all__ = ["default_contacts_path", "default_key_path", "prepare_default_key_path"]


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


def prepare_default_key_path() -> Path:
    """Return `default_key_path()` with its folder made. Raises `KeyFileError` when that fails."""
    path = default_key_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(
            f"the folder {path.parent} for your key cannot be made ({error.strerror}): name a key file elsewhere"
        ) from error
    return path
