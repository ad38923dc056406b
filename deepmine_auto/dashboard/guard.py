"""What stands before the stock dashboard: who may look, that looking is all, and what a page may do.

The stock dashboard lets anybody delete a study, upgrade a database, and read both from any other page.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import parse_qs, quote, urlsplit
from wsgiref.headers import Headers
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from deepmine_auto.dashboard.access import is_loopback

METHODS = ("GET", "HEAD")

PAGE = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the stock pages need, and no more: parallel coordinates build their shaders by `new Function`, and `<style>` is
everywhere. A script that stands in a page, or comes from elsewhere, never runs."""

SAFE = {
    "Content-Security-Policy": PAGE,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ARTIFACT = {"Content-Security-Policy": "default-src 'none'; sandbox", "Content-Disposition": "attachment"}
"""An artifact's bytes and type are whatever somebody wrote: it is shown as an image or downloaded, and never a page."""


class Guard:
    """Answers GET and HEAD alone: with a token, to whoever has it; without, to pages of this machine's own names."""

    def __init__(self, application: WSGIApplication, token: str | None) -> None:
        self.application = application
        self.token = token

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Refuse, or let the application answer under our headers."""
        if environ["REQUEST_METHOD"] not in METHODS:
            return _answer(environ, start_response, "405 Method Not Allowed", "Read only.", Allow=", ".join(METHODS))
        if self.token is None:
            if not is_loopback(_host(environ)):  # a foreign name that leads here is how other sites' pages would read
                return _answer(environ, start_response, "421 Misdirected Request", "Open it as http://127.0.0.1.")
        elif _same(parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0], self.token):
            return self._welcome(environ, start_response, self.token)
        elif not any(_same(each, self.token) for each in _tokens(environ)):
            what = "Open the address with the token that the command printed."
            return _answer(environ, start_response, "401 Unauthorized", what, **{"WWW-Authenticate": "Bearer"})
        return self.application(environ, _under_our_headers(environ, start_response))

    def _welcome(self, environ: WSGIEnvironment, start_response: StartResponse, token: str) -> Iterable[bytes]:
        """Take the token out of the address, into a cookie that the page's own requests will carry."""
        cookie = f"{_cookie_name(environ)}={token}; Path=/; HttpOnly; SameSite=Lax"
        location = "/" + quote(environ["PATH_INFO"].lstrip("/"))
        return _answer(environ, start_response, "303 See Other", "", **{"Set-Cookie": cookie, "Location": location})


def _tokens(environ: WSGIEnvironment) -> list[str]:
    """The tokens that a request carries, as a header or as our cookie."""
    kind, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    cookies = dict(each.strip().partition("=")[::2] for each in environ.get("HTTP_COOKIE", "").split(";"))
    return [bearer if kind.lower() == "bearer" else "", cookies.get(_cookie_name(environ), "")]


def _cookie_name(environ: WSGIEnvironment) -> str:
    return f"deepmine_auto_{environ['SERVER_PORT']}"  # a browser sends a cookie to every port of a host


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _host(environ: WSGIEnvironment) -> str:
    """The name by which the page was asked for, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
    except ValueError:
        return ""


def _under_our_headers(environ: WSGIEnvironment, start_response: StartResponse) -> StartResponse:
    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> object:
        ours = Headers(headers)
        del ours["Access-Control-Allow-Origin"]
        for name, value in _headers_for(environ["PATH_INFO"]).items():
            ours[name] = value
        return start_response(status, ours.items(), exc_info)  # type: ignore[arg-type]

    return start  # type: ignore[return-value]


def _headers_for(path: str) -> dict[str, str]:
    return SAFE | ARTIFACT if path.lstrip("/").startswith("artifacts/") else SAFE


def _answer(
    environ: WSGIEnvironment, start_response: StartResponse, status: str, text: str, **more: str
) -> Iterable[bytes]:
    start_response(status, list({"Content-Type": "text/plain; charset=utf-8", **SAFE, **more}.items()))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [f"{text}\n".encode()]
