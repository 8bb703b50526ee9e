FROM scratch
ARG a=x
ENV b=${a:?must be given} c=${a?also}
