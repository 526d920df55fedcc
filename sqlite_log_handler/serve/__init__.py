"""
The log in a browser: an ASGI application, which `sqlite-log serve` runs by itself.

    >>> from sqlite_log_handler.serve import create_app
    >>> app = create_app("app-log.db")  # uvicorn.run(app), or app.mount("/logs", app) in a program of your own

It needs the extra `serve`: `pip install "sqlite-log-handler[serve]"`.
"""

from sqlite_log_handler.serve.app import create_app

__all__ = ["create_app"]
