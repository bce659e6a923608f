"""Whether W&B is reached, decided without importing it and without asking anybody.

Turns the configuration and what this machine knows of keys into W&B's mode, in the
places where W&B's client looks. It refuses to read a key's value further than to see
that there is one; whether the server takes it, W&B itself says.
"""

from __future__ import annotations

import configparser
import netrc
import os
import urllib.parse
from collections.abc import Mapping

from trainer.config.errors import ConfigError

_SERVER = "https://api.wandb.ai"
_MODES = ("online", "offline", "disabled")
_VARIABLES = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_SETTINGS = ("api_key", "identity_token_file")


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
        host = _host(environment, _settings(environment))
        raise ConfigError(
            key="tracker.mode",
            expected="an API key of W&B for tracker.mode=online",
            received=f"none for {host} in WANDB_API_KEY or in the netrc file",
            fix="run `wandb login` once, or use tracker.mode=offline",
        )
    return wanted


def has_key(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this machine has a key for the W&B server in use."""
    settings = _settings(environment)
    if any(environment.get(name) for name in _VARIABLES):
        return True
    if any(settings.get(name) for name in _SETTINGS):
        return True
    try:
        keys = netrc.netrc(_netrc_path(environment))
    except (OSError, netrc.NetrcParseError):
        return False
    return keys.authenticators(_host(environment, settings)) is not None


def _host(environment: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """Return the server in use: the environment's, that of `wandb login`, or W&B's."""
    url = environment.get("WANDB_BASE_URL") or settings.get("base_url") or _SERVER
    return urllib.parse.urlsplit(url).netloc


def _netrc_path(environment: Mapping[str, str]) -> str:
    if environment.get("NETRC"):
        return os.path.expanduser(environment["NETRC"])
    paths = [os.path.expanduser(name) for name in ("~/.netrc", "~/_netrc")]
    return next((path for path in paths if os.path.exists(path)), paths[0])


def _settings(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return what `wandb login` keeps beside the key; what cannot be read is none."""
    folder = environment.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(os.path.join(os.path.expanduser(folder), "settings"))
        return dict(parser.items("default"))
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
