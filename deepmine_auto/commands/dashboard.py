"""`deepmine-auto dashboard`: look at the studies in a browser."""

from __future__ import annotations

import click

from deepmine_auto.commands.options import database, storage_options

HOST = "127.0.0.1"
PORT = 8080

OPEN = "This is not encrypted: whoever sees the traffic sees the token. An ssh tunnel is safer."


@click.command()
@click.argument("study", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 is any that is free.")
@click.option("--host", default=HOST, show_default=True, help="Where to serve; other machines need a token.")
@storage_options
def dashboard(study: str | None, port: int, host: str, storage: str | None, storage_file: str | None) -> None:
    """Serve optuna-dashboard over a database's studies, read only, until Ctrl-C; also while a search runs.

    It prints the address of STUDY's page; of the newest study's, unless you name one. Where other machines reach it,
    the address carries a token: the one in DEEPMINE_AUTO_DASHBOARD_TOKEN, or a new one.
    """
    import warnings

    from deepmine_auto.dashboard.access import address, is_loopback, token_for
    from deepmine_auto.dashboard.serve import application, bound
    from deepmine_auto.terminal.looking import see

    warnings.filterwarnings("ignore", module="optuna")  # of importances that a page draws from few trials
    seen = see(database(storage, storage_file), study)
    token = token_for(host)
    with bound(application(seen.store, token), host, port) as server:
        click.echo(address(host, server.server_port, f"dashboard/studies/{seen.row.id}", token))
        if not is_loopback(host):
            click.echo(OPEN, err=True)
        server.serve_forever()
