import os

import pytest

from fashion_hydra.config import resolvers
from fashion_hydra.config.compose import compose_config
from fashion_hydra.config.machine import has_gpu, share_batch, usable_cores


@pytest.mark.parametrize("driver", ["dev/nvidiactl", "dev/kfd", "dev/dxg"])
def test_a_gpu_is_known_by_its_drivers_file(tmp_path, monkeypatch, driver):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not has_gpu(tmp_path)
    (tmp_path / driver).parent.mkdir()
    (tmp_path / driver).touch()
    assert has_gpu(tmp_path)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not has_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert has_gpu(tmp_path)


@pytest.mark.parametrize(
    ("limit", "cores"), [(None, 8), ("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("nonsense", 8)]
)
def test_cores_are_those_of_the_affinity_and_of_the_container(tmp_path, monkeypatch, limit, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("batch", "cores", "processes"), [(8, 2, 2), (8, 3, 2), (8, 6, 4), (8, 64, 8), (7, 6, 1), (None, 6, 6), (0, 4, 1)]
)
def test_processes_share_a_batch_evenly(batch, cores, processes):
    assert share_batch(batch, cores) == processes


@pytest.mark.parametrize(
    ("gpu", "backbone", "accelerator", "short_edge"), [(True, "ResNet", "auto", 600), (False, "Timm", "cpu", 256)]
)
def test_the_default_recipe_depends_on_the_machine(monkeypatch, gpu, backbone, accelerator, short_edge):
    monkeypatch.setattr(resolvers, "has_gpu", lambda: gpu)
    monkeypatch.setattr(resolvers, "usable_cores", lambda: 6)
    cfg = compose_config("train", "data.root=x")
    assert backbone in cfg.model.backbone.type
    assert cfg.trainer.accelerator == accelerator
    assert cfg.augment.short_edge[0] == short_edge
    assert cfg.trainer.devices == (1 if gpu else 4)
    assert ("ema" in cfg.callbacks) is not gpu
