FROM scratch
COPY . /
COPY / /
COPY a /
