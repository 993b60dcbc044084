"""Noise on 8 devices, of one process and of two: that of one device, without communication."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("sharded.py")


def start(processes: int, index: int, port: int) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={8 // processes}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), str(processes), str(index), str(port)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_noise_does_not_depend_on_the_devices(processes):
    port = free_port()
    running = [start(processes, index, port) for index in range(processes)]
    try:
        outputs = [process.communicate(timeout=500)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == 0, output
        assert "same noise" in output
