ARG a
FROM scratch AS unused
ENV b=${a:?must be given}
FROM scratch
