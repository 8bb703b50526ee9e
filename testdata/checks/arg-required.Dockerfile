FROM scratch
ARG a
ENV b=${a:?must be given}
