"""
Django, started by its own commands.
"""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.needs("django")

URLS = """
import gc
import logging
import threading
import weakref

from django.http import HttpResponse, HttpResponseForbidden
from django.urls import path

seen = []


def passes(request):
    seen.append(weakref.ref(request))
    logging.getLogger("shop").info("passed", extra={"request": request})
    return HttpResponse("ok")


def warns(request):
    seen.append(weakref.ref(request))
    return HttpResponseForbidden()


def raises(request):
    seen.append(weakref.ref(request))
    return HttpResponse(str(1 / 0))


def alive(request):
    for thread in threading.enumerate():  # an answer is read before the server's thread has let go of its request
        if "process_request" in thread.name and thread is not threading.current_thread():
            thread.join()
    gc.collect()
    return HttpResponse(str(sum(reference() is not None for reference in seen)))


urlpatterns = [path("passes", passes), path("warns", warns), path("raises", raises), path("alive", alive)]
"""


def test_page(project):
    """The page can be followed word for word, with the server that reloads itself, and finds the missing page."""
    project.follow()

    [[(_, level, message, status)]] = project.answers
    assert ("WARNING", "Not Found: /nowhere", 404) == (level, message, status)


@pytest.fixture
def shop(project):
    """The project of the page with views of its own, and its server."""
    project.run("django-admin startproject shop .")
    project.write()
    (project.folder / "shop" / "urls.py").write_text(URLS, encoding="utf-8")
    return project.start("python manage.py runserver 8000 --noreload", "")


def test_requests_that_pass_warn_and_raise(project, shop):
    """Each request has its row, with the request as text and the traceback in its column."""
    assert [200, 403, 500] == [project.fetch(path)[0] for path in ("/passes", "/warns", "/raises")]
    shop.end(signal.SIGINT)

    rows = project.query(
        "SELECT level, logger, message, exc_type FROM logs WHERE json_extract(attributes, '$.request') IS NOT NULL"
    )
    assert [
        ("INFO", "shop", "passed", None),
        ("WARNING", "django.request", "Forbidden: /warns", None),
        ("ERROR", "django.request", "Internal Server Error: /raises", "ZeroDivisionError"),
    ] == rows
    attributes = project.attributes("message LIKE 'Internal%'")
    assert {"request": "<WSGIRequest: GET '/raises'>", "status_code": 500} == attributes


def test_requests_are_not_kept_alive(project, shop):
    """The request object that stands in `extra` is gone when the request is over, though its row was queued."""
    for _ in range(5):
        project.fetch("/passes")
        project.fetch("/warns")

    assert "0" == project.fetch("/alive")[1]
    shop.end(signal.SIGINT)
    assert [(10,)] == project.query("SELECT count(*) FROM logs WHERE json_extract(attributes, '$.request') IS NOT NULL")
