"""``quasistatic cache info`` and ``quasistatic cache clear``: what is kept of compiled code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def make_cache_app() -> typer.Typer:
    """The commands as a typer application."""
    import typer

    app = typer.Typer(no_args_is_help=True, help="Look at, or remove, the compiled code that is kept between runs.")
    app.command("info")(info)
    app.command("clear")(clear)
    return app


def info() -> None:
    """Show where compiled code is kept, how much it is, and whether it is used.

    The environment variable QUASISTATIC_CACHE_DIR moves it; QUASISTATIC_CACHE=0 switches it off.
    """
    from quasistatic.numeric import cache

    print(cache.info())


def clear() -> None:
    """Remove all compiled code; it is made again when needed."""
    from quasistatic.numeric import cache

    before = cache.clear()
    print(f"removed {before.kernels} kernels and {before.plans} plans ({before.size / 1e6:.1f} MB) from {before.folder}")
