"""What do serve.py scripts share? The checks before a model is loaded, and the key."""

import ipaddress
import os
from importlib.util import find_spec

from lm_recipes.launch import UserError

KEY = "LM_RECIPES_API_KEY"


def key_and_hosts(host: str) -> tuple[str | None, tuple[str, ...] | None]:
    """The server's key, from the environment, and the names it may be called by (None: any).

    Raises:
        UserError: other machines could reach the server, and there is no key.
    """
    key = os.environ.get(KEY) or None
    if _is_local(host):
        return key, (host, "127.0.0.1", "localhost", "[::1]")
    if key is None:
        raise UserError(f"--host {host}: other machines could use the model; choose a key and set {KEY} to it")
    return key, None


def refuse_missing_extra() -> None:
    """UserError where FastAPI and its company are not installed."""
    for package in ("fastapi", "prometheus_client", "uvicorn"):
        if find_spec(package) is None:
            raise UserError(f"serving needs {package}: pip install -e '.[serve]'")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
