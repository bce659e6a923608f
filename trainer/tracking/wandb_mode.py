"""Whether W&B is reached, decided without importing it and without asking anybody.

Turns the configuration and what this machine knows of keys into W&B's mode. It
refuses to read a key's value further than to see that there is one.
"""

from __future__ import annotations

import netrc
import os
import urllib.parse
from collections.abc import Mapping

from trainer.config.errors import ConfigError

_SERVER = "https://api.wandb.ai"
_MODES = ("online", "offline", "disabled")


def choose_mode(wanted: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return `online`, `offline` or `disabled`.

    `auto` follows WANDB_MODE where it is set, and else is online with a key only.

    Raises:
        ConfigError: `online` is wanted and there is no key: W&B would ask for one.
    """
    if wanted == "auto":
        mode = environment.get("WANDB_MODE", "")
        if mode in _MODES:
            return mode
        return "online" if has_key(environment) else "offline"
    if wanted == "online" and not has_key(environment):
        raise ConfigError(
            key="tracker.mode",
            expected="an API key of W&B for tracker.mode=online",
            received="none in WANDB_API_KEY or in the netrc file",
            fix="run `wandb login` once, or use tracker.mode=offline",
        )
    return wanted


def has_key(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this machine has a key for the W&B server in use."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urllib.parse.urlsplit(environment.get("WANDB_BASE_URL") or _SERVER).netloc
    path = environment.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
