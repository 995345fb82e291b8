# docker build -t fashion_hydra .
# docker run --gpus all --shm-size 16g -v DATA:/data -v "$PWD/runs:/opt/fashion_hydra/runs" fashion_hydra \
#     python train.py data.root=/data model=htc_r50
# The wheels bring CUDA's libraries along, so the host needs a driver and its container toolkit, and the image nothing.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/fashion_hydra
# Dependencies first: they change less often than the code. An editable install needs no more of it than a package.
COPY Makefile pyproject.toml requirements.lock README.md LICENSE ./
COPY fashion_hydra/__init__.py fashion_hydra/
RUN PIP_NO_CACHE_DIR=1 make setup
COPY . .

ENV PATH=/opt/fashion_hydra/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1
CMD ["python", "train.py", "--help"]
