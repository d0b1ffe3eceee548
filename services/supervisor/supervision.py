"""The life of one machine's Baton, from an empty folder to a clean stop."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from migrations.logins import service_url
from migrations.runner import states, upgrade
from services.chassis.config import ConfigurationError
from services.chassis.database import Database
from services.chassis.server import stop_signal
from services.sessions.bootstrap import SERVICES, SYSTEM, WORKER, FirstAgent, mint_to_file
from services.sessions.keys import ensure_keys
from services.supervisor import demo, ports, postgres
from services.supervisor.config import Settings
from services.supervisor.home import Home
from services.supervisor.processes import Child
from services.supervisor.programs import CONTEXTS, programs

_READY_TIMEOUT_SECONDS = 60.0


def say(line: str) -> None:
    """Tells the operator."""
    _print(f"baton: {line}")


def _print(line: str) -> None:
    """Prints at once even through a pipe. When nobody reads that any more, everything goes on without it."""
    try:
        print(line, flush=True)  # noqa: T201 - this is the program's user interface
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def supervise(settings: Settings) -> None:
    """Sets up the home, runs everything until SIGTERM or SIGINT, and stops it in order."""
    settings.check()
    if not ports.is_free(settings.port):
        raise ConfigurationError(f"port {settings.port} is taken: set BATON_PORT to another one")
    home = Home(settings.home)
    addresses = home.addresses(CONTEXTS)
    home.prepare(demo=settings.demo)
    database_urls = _set_up_databases(settings, home)
    children = [Child(program, say) for program in programs(home, addresses, database_urls, settings)]
    stop = asyncio.create_task(stop_signal())
    for child in children:
        child.start()
    try:
        await _serve_until(stop, home, settings)
    finally:
        say("stopping")
        # First those who call, then those who are called: nothing in progress loses its other side.
        for group in (children[len(CONTEXTS) :], children[: len(CONTEXTS)]):
            await asyncio.gather(*(child.stop() for child in group))
        say("stopped")


async def _serve_until(stop: asyncio.Task[None], home: Home, settings: Settings) -> None:
    url = f"http://127.0.0.1:{settings.port}"
    starting = asyncio.create_task(_become_ready(url, home))
    await asyncio.wait({stop, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    starting.result()
    _print_banner(url, home)
    await stop


async def _become_ready(url: str, home: Home) -> None:
    await _answers(f"{url}/health/ready")
    if home.demo_due.exists():
        await _load_demo(url, home)


async def _load_demo(url: str, home: Home) -> None:
    try:
        await asyncio.to_thread(demo.load, url, home.admin_token.read_text().strip(), home.path)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        say(f"the demo could not be loaded, the next start tries again: {error}")
    else:
        home.demo_due.unlink()


async def _answers(url: str) -> None:
    until = time.monotonic() + _READY_TIMEOUT_SECONDS
    while True:
        try:
            await asyncio.to_thread(_get, url)
            return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > until:
                raise ConfigurationError(f"{url} does not answer after {_READY_TIMEOUT_SECONDS:g} s: {error}") from None
            await asyncio.sleep(0.05)


def _get(url: str) -> None:
    urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - our own gateway


def _set_up_databases(settings: Settings, home: Home) -> dict[str, str]:
    """Migrates, writes the first tokens, and answers where each context finds its tables."""
    embedded = not settings.database_url
    admin_url = settings.database_url or _embedded_url(settings, home)
    secret = home.database_secret.read_bytes()
    # Only what is made here and now may be dropped by `reset`, not what somebody else has migrated before.
    development = embedded and not any(state.current for state in states(admin_url))
    for applied in upgrade(admin_url, development=development, secret=secret):
        if applied.steps:
            say(f"migrated {applied.context} to {applied.after}")
    urls = {context: service_url(admin_url, context, secret) for context in CONTEXTS}
    ensure_keys(home.signing_key, home.jwks)
    database = Database(urls["sessions"], schema="sessions", pool_size=1)
    _write_token(database, SYSTEM, home.admin_token)
    _write_token(database, WORKER, home.worker_token)
    _write_token(database, SERVICES, home.services_token)
    database.close()
    return urls


def _write_token(database: Database, agent: FirstAgent, path: Path) -> None:
    mint_to_file(database, agent.name, agent.scopes, path)


def _embedded_url(settings: Settings, home: Home) -> str:
    return postgres.start(home.postgres) if settings.db == "postgres" else f"sqlite:///{home.path}"


def _print_banner(url: str, home: Home) -> None:
    say(f"API reference  {url}/docs")
    say(f"admin token    {home.admin_token}")
    say(f"logs           {home.logs}")
    say("a first tour   README.md")
    # Scripts wait for this line.
    _print(f"baton ready url={url}")
