# The three commands, as a user without rights: lungs-create-dataset, lungs-train and lungs-inference.
#
#   docker build -t lungs .
#   docker build -t lungs:cuda --build-arg DEVICE=cuda .

FROM python:3.11-slim-bookworm AS build
ARG DEVICE=cpu
WORKDIR /source
RUN python -m venv /opt/lungs
ENV PATH=/opt/lungs/bin:$PATH
COPY requirements.txt requirements-dev.txt ./
# highdicom is an extra, whose version requirements-dev.txt holds; CUDA comes as packages, the driver from the machine.
RUN case "$DEVICE" in \
        cpu) more="" ;; \
        cuda) more="tensorflow[and-cuda]" ;; \
        *) echo "DEVICE must be cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac; \
    pip install --no-cache-dir --requirement requirements.txt --constraint requirements-dev.txt highdicom ${more:+"$more"}
COPY . .
RUN pip install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/lungs /opt/lungs
# Any user may be given with --user: none needs a home, and what lies in /opt/lungs belongs to root.
ENV PATH=/opt/lungs/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    KERAS_HOME=/tmp/keras
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin lungs \
    && mkdir /work \
    && chown lungs /work
WORKDIR /work
USER 10001
CMD ["lungs-inference", "--help"]
