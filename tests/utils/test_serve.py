"""The page to ask in is served to this machine, to who has its address, and shows videos alone."""

import json
import urllib.error
import urllib.request
from urllib.parse import quote

import pytest

pytest.importorskip("av")
pytest.importorskip("starlette")
from tests.simulated import refuse
from tests.utils.viewer.served import make_index, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of the index, and the address of its page."""
    folder = tmp_path_factory.mktemp("served")
    with serving(make_index(folder), "--device", "cpu") as address:
        yield folder, address


def get(address, **headers):
    """Status, headers and content of what is there."""
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_a_question_is_answered(served):
    _, address = served
    status, headers, page = get(address)
    assert status == 200 and b"Ask your videos" in page
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    for name in ("page.css", "ask.css", "elements.js", "ask.js"):
        assert get(address + name)[0] == 200
    status, _, content = get(f"{address}answers?question={quote('Where is the cup?')}")
    moments = json.loads(content)
    assert status == 200 and len(moments) == 12
    names = {0: "friday.pt", 1: "monday <b>.mp4", 2: "tuesday.webm"}
    for moment in moments:
        assert moment["name"] == names[moment["video"]] and moment["start"] < moment["end"]
        assert moment["playable"] == (moment["video"] > 0) and moment["scoreName"] == "score"
    scores = [moment["score"] for moment in moments]
    assert scores == sorted(scores, reverse=True)
    status, _, content = get(f"{address}answers?question=")
    assert status == 400 and "the question is empty" in json.loads(content)["error"]


def test_videos_are_read_in_parts(served):
    folder, address = served
    content = (folder / "videos" / "tuesday.webm").read_bytes()
    status, headers, part = get(f"{address}video/2", Range="bytes=1000-1999")
    assert status == 206 and part == content[1000:2000]
    assert headers["Content-Range"] == f"bytes 1000-1999/{len(content)}"
    assert headers["Content-Type"] == "video/webm"
    assert get(f"{address}video/2")[2] == content
    status, headers, picture = get(f"{address}picture/2/3.50")
    assert status == 200 and headers["Content-Type"] == "image/jpeg" and picture[:2] == b"\xff\xd8"
    assert get(f"{address}picture/0/3.5")[0] == 404  # features


@pytest.mark.parametrize(
    "place",
    ["video/3", "video/-1", "video/../../secret.webm", "video/%2e%2e%2fsecret.webm", "page.html",
     "..%2fpage.py", "%2e%2e/server.py", "video/2%00", "picture/9/1.0", "server.py"],
)  # fmt: skip
def test_no_other_file_is_read(served, place):
    _, address = served
    assert get(address + place)[0] in (403, 404)


def test_without_token_or_under_another_name_nothing_is_read(served):
    _, address = served
    *root, token, _ = address.split("/")
    root = "/".join(root)
    for path in ("/", "/video/2", "/x/", "/x/video/2", f"/{token[:-1]}/", f"/{token}x/answers"):
        assert get(root + path)[0] == 403, path
    status, _, content = get(address, Host="rebound.example")
    assert status == 400 and b"Ask" not in content
    assert get(address.replace("127.0.0.1", "localhost"))[0] == 200


def test_wrong_uses_are_one_line(served, tmp_path):
    folder, address = served
    program = ("utils/serve.py", "--index", folder / "index", "--device", "cpu")
    port = address.split(":")[2].split("/")[0]
    assert f"--port {port}: Address already in use" in refuse(*program, "--port", port)
    assert "--top: must be in [1, 1000], is 0" in refuse(*program, "--top", 0)
    assert "--port: must be in [0, 65535], is 99999" in refuse(*program, "--port", 99999)
    assert "no index of videos" in refuse("utils/serve.py", "--index", tmp_path)
