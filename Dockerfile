# hwnas in a container: docker build --tag hwnas . && docker run --rm --volume "$PWD:/work" hwnas --help
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl && rm -r /wheels
WORKDIR /work
ENTRYPOINT ["hwnas"]
