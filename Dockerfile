# ofa-pose on CPUs, with all that its tests need.
#   docker build -t ofa-pose .
#   docker run --rm --shm-size 1g ofa-pose bin/test
#   docker run --rm --shm-size 1g --user "$(id -u):$(id -g)" -e HOME=/tmp -v "$PWD:/work" -w /work ofa-pose ofa-pose demo

# The checkout's folders and what bin/setup reads, so that an edit elsewhere installs nothing again.
FROM python:3.12-slim-bookworm AS outline
COPY . /outline
WORKDIR /outline
RUN find . -type f ! -path ./bin/setup ! -path ./constraints.txt ! -path ./setup.cfg ! -path ./pyproject.toml \
    ! -path './ofa_pose/*__init__.py' ! -path './tests/browser/package*.json' -delete

FROM python:3.12-slim-bookworm
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends chromium g++ git nodejs npm \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ofa-pose
COPY --from=outline /outline .
RUN npm ci --ignore-scripts --prefix tests/browser
RUN bin/setup
COPY . .
ENV PATH=/ofa-pose/.venv/bin:$PATH
CMD ["ofa-pose", "--help"]
