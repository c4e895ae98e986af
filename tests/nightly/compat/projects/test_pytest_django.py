"""A database of Django, and its live server as the target."""

import json
import sys
from types import ModuleType

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from pytest_mlpatterns import Url


@csrf_exempt
def predict(request):
    return JsonResponse({"predictions": [2 * value for value in json.loads(request.body)["instances"]]})


urls = ModuleType("urls_of_this_test")
urls.urlpatterns = [path("predict", predict)]
sys.modules[urls.__name__] = urls


@pytest.fixture(autouse=True)
def _urls(settings):
    settings.ROOT_URLCONF = urls.__name__


@pytest.fixture
def perf_target(live_server):
    return Url(f"{live_server.url}/predict")


@pytest.fixture
def perf_payload():
    return [1, 2]


@pytest.mark.django_db
def test_database():
    get_user_model().objects.create(username="ada")
    assert settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    assert get_user_model().objects.count() == 1


@pytest.mark.perf(duration="200ms", warmup="0s", launches=1)
def test_live_server(perf):
    assert perf.predict(4) == 8
    perf.assert_error_rate_below("1%")
