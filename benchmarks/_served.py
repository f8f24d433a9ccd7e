"""A server as a process for the length of a benchmark: started, paused between turns, ended.

A paused server (SIGSTOP, with everything that it started) keeps its memory and takes no processor,
so that several can take turns on one machine in one run.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from _http_client import HOST, Client, closed_loop

from apparate_jax.checkpoint import load_checkpoint, save_checkpoint

SHOWN = 15


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def apparate_serve(apparate: Path, checkpoint: Path, port: int, *, exits: bool) -> list[str]:
    """The command that serves a checkpoint as ``model``, with early answers or without.

    Without: of a copy in which no ramp is active, so that none is measured at the start either.
    """
    if not exits:
        copy = checkpoint.with_name(f"{checkpoint.name}-no-exits")
        save_checkpoint(copy, replace(load_checkpoint(checkpoint), active=()))
        checkpoint = copy
    command = [str(apparate), "serve", str(checkpoint), "--model-name", "model", "--no-grpc"]
    off = [] if exits else ["--policy", "fixed"]
    return [*command, "--http-port", str(port), "--log-level", "warning", *off]


class Served:
    """A server's process tree."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.port, self._log = name, port, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def wait(self, request: bytes, timeout_s: float) -> None:
        """Wait until the server answers a request.

        Raises:
            RuntimeError: It ended, or took too long; with the end of its log.
        """
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s and self._process.poll() is None:
            time.sleep(0.3)
            try:
                asyncio.run(self._ask(request))
                return
            except (OSError, RuntimeError, EOFError, TimeoutError):
                continue
        ended = self._process.poll()
        why = "took too long" if ended is None else f"ended with {ended}"
        raise RuntimeError(f"{self.name} {why}: {self.last_lines()}")

    async def _ask(self, request: bytes) -> None:
        client = Client(self.port)
        try:
            await asyncio.wait_for(client.ask(request), 10.0)
        finally:
            client.close()

    def last_lines(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-SHOWN:])

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> None:
        for process in self._tree():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    @property
    def pid(self) -> int:
        """Of the process at the root."""
        return self._process.pid

    def learn(self, requests: Sequence[bytes], seconds: float) -> None:
        """One request after the other, then rest: control settles, and what it compiles is done."""
        asyncio.run(closed_loop(self.port, requests, 1, seconds, 0.0))
        time.sleep(seconds / 2)

    def control(self) -> dict[str, Any]:
        """What control did so far, by the server's own account (``apparate serve`` only)."""
        url = f"http://{HOST}:{self.port}/apparate/status"
        with urllib.request.urlopen(url, timeout=10) as response:
            model = json.load(response)["models"][0]
        return {**model["control"], "agreement": model["accuracy"]["agreement"]}

    def pause(self) -> None:
        """Take it off the processors."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def rss_mib(self) -> float:
        """Resident memory of the whole tree, MiB; what processes share counts for each."""
        return sum(process.memory_info().rss for process in self._tree()) / 2**20

    def idle_cores(self, seconds: float) -> float:
        """Processor time that the tree takes while nobody asks, in cores."""
        before = cpu_s_of(self.pid)
        time.sleep(seconds)
        return (cpu_s_of(self.pid) - before) / seconds

    def stop(self, timeout_s: float = 15.0) -> None:
        """End it and everything that it started."""
        tree = self._tree()
        self.resume()
        if tree and self._process.poll() is None:
            self._process.terminate()
        _, alive = psutil.wait_procs(tree, timeout=timeout_s)
        for process in alive:
            process.kill()
        self._process.wait()


def cpu_s_of(pid: int) -> float:
    """Processor time that a process and everything that it started took so far, seconds."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in [root, *root.children(recursive=True)]]
    return float(sum(one.user + one.system for one in times))


def main_thread_s_of(pid: int) -> float:
    """Processor time that a process's first thread took so far: a server's event loop, seconds."""
    return float(
        sum(
            one.user_time + one.system_time
            for one in psutil.Process(pid).threads()
            if one.id == pid
        )
    )
