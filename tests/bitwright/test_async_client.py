"""The awaiting client, batches, large files, modules and loaders, against a real service."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright import AsyncClient, Client, InvalidRequestError, JobFailedError
from bitwright.operations import submit, upload

_BREAKS: dict[str, Any] = {"data": {"input": np.zeros(3), "labels": [[1], [1, 2]]}}


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of a hundred bytes is sent by itself."""
    monkeypatch.setattr(submit, "LARGE", 100)
    monkeypatch.setattr(upload, "_PAUSE", 0.05)


def test_the_main_path_awaited(server: Any, model_file: Path, sample_file: Path, tmp_path: Path) -> None:
    async def main() -> None:
        seen: list[float] = []
        async with AsyncClient(server.url) as client:
            job = await client.quantize(model_file, data=sample_file, size=0.18, bits=[4, 8], tags=["night"])
            assert await job.wait(on_progress=lambda info: seen.append(info.progress)) is job
            assert (await job.report()).metrics.quantized == 0.89
            folder = await job.download(tmp_path / "out")
            assert (folder / "model.onnx").read_bytes() == model_file.read_bytes()[::-1]
            assert (await job.plan(size=0.25)).bits == {"fc": 4}
            assert (await (await job.quantize(size=0.3)).wait()).state == "succeeded"
            assert (await client.jobs.get(job.id)).info == (await job.refresh()).info
            assert job.id in [found.id for found in await client.jobs.list(state="succeeded", tag="night")]
            assert await client.jobs.list(tag="no such tag") == []
            table = await (await client.analyze(model_file, data=sample_file)).wait()
            assert (await table.sensitivities()).method == "output"
            assert (await client.health()).status == "ok"
            await job.delete()
        assert seen == sorted(seen)

    asyncio.run(main())


def test_the_same_key_makes_one_job(server: Any, model_file: Path, sample_file: Path) -> None:
    with Client(server.url) as client:
        jobs = {client.quantize(model_file, data=sample_file, idempotency_key="mine").id for _ in range(3)}
        assert len(jobs) == 1


def test_large_files_go_ahead_and_only_once(
    server: Any, sample_file: Path, tmp_path: Path, small_is_large: None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "large.onnx"
    model.write_bytes(b"\x08\x0a" + os.urandom(3 * 2**20))
    with Client(server.url) as client:
        first = client.quantize(model, data=sample_file, progress=True).wait()
        assert (first.info.model, first.info.data) == ("large.onnx", "d.npz")
        assert "large.onnx" in capsys.readouterr().err
        name = upload.file_digest(model)
        assert server.http.get(f"/uploads/{name}").json()["complete"]
        told: list[int] = []
        client._connection.run(upload.upload(model, 0, lambda _, done, size: told.append(done)))
        assert told == [model.stat().st_size]  # at once: nothing was sent


def test_an_upload_goes_on_through_a_line_that_breaks_again_and_again(
    server: Any, tmp_path: Path, small_is_large: None
) -> None:
    model = tmp_path / "large.onnx"
    model.write_bytes(os.urandom(9 * 2**20))
    with _Cutting(server.port, every=3 * 2**20) as line, Client(f"http://127.0.0.1:{line.port}") as client:
        # A busy service may be asked again before it took any of what was sent.
        name = client._connection.run(upload.upload(model, 1000))
        assert line.cuts >= 2
    assert server.http.get(f"/uploads/{name}").json()["bytes"] == model.stat().st_size


class _Cutting:
    """A proxy that breaks each connection after so many bytes from the client."""

    def __init__(self, target: int, every: int) -> None:
        self._target, self._every = target, every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> _Cutting:
        self._start(self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            end.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            service = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [client, service]
            self._start(self._forward, client, service)
            self._start(self._back, service, client)

    def _forward(self, client: socket.socket, service: socket.socket) -> None:
        left = self._every
        with suppress(OSError):
            while left > 0 and (block := client.recv(65536)):
                service.sendall(block)
                left -= len(block)
            self.cuts += left <= 0
            for end in (client, service):
                end.shutdown(socket.SHUT_RDWR)
                end.close()  # one that is shut down alone takes what is sent until it is full, and then nothing

    def _back(self, service: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while block := service.recv(65536):
                client.sendall(block)


def test_batches_of_arrays_become_one_file(server: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    value = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", 3])
    out = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "g", [value], [out])
    model = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph), model)
    batches = [(np.full((2, 3), i, np.float32), np.array([i, i])) for i in range(3)]
    with Client(server.url) as client:
        job = client.quantize(model, data=batches)
        with np.load(server.stored(job.id, "input")[f"data/{job.info.data}"]) as stored:
            assert stored["input"].shape == (6, 3)
            assert stored["labels"].tolist() == [0, 0, 1, 1, 2, 2]
        again = client.quantize(model, data=({"input": batch} for batch, _ in batches))
        with np.load(server.stored(again.id, "input")[f"data/{again.info.data}"]) as stored:
            assert stored.files == ["input"]
        with pytest.raises(InvalidRequestError, match="has the inputs input"):
            client.quantize(model, data=[(1, 2, 3)])
        with pytest.raises(InvalidRequestError, match="no samples"):
            client.quantize(model, data=[])


@pytest.mark.slow
def test_a_torch_module_is_exported_here_and_loaders_are_samples(server: Any) -> None:
    import onnx
    import onnxruntime
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5)).train()
    net[0].eval()  # as a frozen normalization is
    images, labels = torch.randn(10, 3, 4), torch.randint(0, 5, (10,))
    with Client(server.url) as client:
        loader = DataLoader(TensorDataset(images, labels), batch_size=4)
        job = client.quantize(net, images[:2], data=loader, size=0.5)
        files = server.stored(job.id, "input")
        assert [part.training for part in net.modules()] == [True, False, True]
        content = files[f"model/{job.info.model}"].read_bytes()
        onnx.checker.check_model(onnx.load_from_string(content))
        session = onnxruntime.InferenceSession(content)
        with np.load(files[f"data/{job.info.data}"]) as stored:
            assert stored["labels"].tolist() == labels.tolist()
            (name,) = (value.name for value in session.get_inputs())
            (got,) = session.run(None, {name: stored[name]})
        np.testing.assert_allclose(got, net(images).detach().numpy(), rtol=1e-4, atol=1e-5)
        with pytest.raises(InvalidRequestError, match="example_inputs"):
            client.quantize(net, data=loader)
        with pytest.raises(InvalidRequestError, match="A dict is no model"):
            client.quantize({}, data=loader)


def test_a_batch_gives_results_in_order_and_goes_on_past_failures(
    server: Any, model_file: Path, sample_file: Path, tmp_path: Path
) -> None:
    with Client(server.url) as client:
        for odd in (
            5,
            {"model": model_file},
            {"model": model_file, "data": object()},
            _BREAKS | {"model": model_file},
        ):
            (refused,) = client.quantize_many([odd])  # type: ignore[list-item]
            assert isinstance(refused.error, InvalidRequestError)
        with pytest.raises(InvalidRequestError, match="concurrency"):
            client.quantize_many([], concurrency=0)

    async def none() -> None:
        async with AsyncClient(server.url) as client:
            await client.quantize_many([], concurrency=0)

    with pytest.raises(InvalidRequestError, match="concurrency"):
        asyncio.run(none())
    wanted: list[Any] = [
        {"model": model_file, "data": sample_file, "size": 0.3},
        {"model": model_file, "data": sample_file, "seed": 5},
        {"model": tmp_path / "none.onnx", "data": sample_file},
        {"model": model_file, "data": sample_file, "size": 0.4, "tags": ("last",)},
    ]
    done: list[bool] = []
    with Client(server.url) as client:
        first, failed, missing, last = client.quantize_many(
            wanted, concurrency=2, on_done=lambda result: done.append(result.succeeded)
        )
        assert first.succeeded
        assert last.succeeded
        assert first.job is not None
        assert first.job.info.spec.budget.size == 0.3
        assert last.job is not None
        assert last.job.info.tags == ("last",)
        assert isinstance(failed.error, JobFailedError)
        assert failed.job is not None
        assert isinstance(missing.error, InvalidRequestError)
        assert missing.job is None
        assert sorted(done) == [False, False, True, True]

    async def awaited() -> list[Any]:
        async with AsyncClient(server.url) as client:
            return await client.quantize_many(wanted, concurrency=2)

    assert [result.succeeded for result in asyncio.run(awaited())] == [True, False, False, True]
