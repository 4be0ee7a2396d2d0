"""Programs as forks of a process that has imported the libraries, which takes seconds.

`python()` names an executable that runs `PROGRAM.py ARGUMENT...` as Python does, in a process of
its own: same arguments, folder, environment, streams, signals and exit code. What it can't run so
(other options, several threads) it leaves to Python.
"""

import atexit
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

LIBRARIES = (
    "numpy", "torch", "torch._dynamo", "torch.distributed", "torch.utils.tensorboard",
    "transformers", "safetensors.torch", "sympy", "nltk", "h5py", "msgspec", "filelock", "tqdm",
)  # fmt: skip
FOLDER = "/tmp"  # a path of a socket is short
PACKET = 1 << 20  # bytes of a request, at most
# What libraries read when they are imported; progress as utils/base/environment.py has it.
SETTINGS = {
    "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_MININTERVAL": "30", "TQDM_MAXINTERVAL": "30", "TQDM_DELAY": "5",
}  # fmt: skip

# Without imports of ours: it starts in hundredths of a second.
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys

words, settings = sys.argv[1:], dict(os.environ)
is_program = words and words[0].endswith(".py") and "PYTHONPATH" not in settings
if not is_program or settings.get("OMP_NUM_THREADS") != "1":
    os.execv(sys.executable, [sys.executable, *words])
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect("{address}")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, _: server.send(b"%d" % number))
request = json.dumps([words, os.getcwd(), settings]).encode()
socket.send_fds(server, [request], [0, 1, 2])
code = os.waitstatus_to_exitcode(int(server.recv(32)))
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@cache
def python() -> str:
    """Start the server of this test process, once; returns the executable."""
    folder = Path(tempfile.mkdtemp(prefix="warm", dir=FOLDER))
    address, client = folder / "socket", folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, address], env=os.environ | SETTINGS, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    atexit.register(shutil.rmtree, folder)
    atexit.register(server.communicate)  # closes its input, which ends it
    assert server.stdout.readline() == b"ready\n"
    return str(client)


def serve(address: str) -> None:
    """Fork a process for each client until the standard input ends; returns in those processes."""
    for library in LIBRARIES:
        __import__(library)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "only a process of one thread forks"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(100)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing is to be known of them
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        client, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request, streams, _, _ = socket.recv_fds(client, PACKET, 3)
            if process := os.fork():
                watch(process, client)
            client.close()
            become(request, streams)
            return
        client.close()
    os._exit(0)


def watch(process: int, client: socket.socket) -> None:
    """Pass signals on to a process until it ends, and its status back; ends this process."""
    ended = os.pidfd_open(process)
    while ended not in select.select([client, ended], [], [])[0]:
        number = client.recv(32)
        os.kill(process, int(number) if number else signal.SIGKILL)  # nothing: its client is gone
        if not number:
            break
    else:
        client.send(b"%d" % os.waitpid(process, 0)[1])
    os._exit(0)


def become(request: bytes, streams: list[int]) -> None:
    """Give this process the arguments, folder, environment and streams of a client."""
    sys.argv, folder, settings = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(settings)
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)


def run() -> int:
    """Run the program that the arguments name; returns the exit code."""
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
    code = run()
    atexit._run_exitfuncs()
    os._exit(code)  # to free all that was imported would take a second
