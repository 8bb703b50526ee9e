ARG a
FROM ${a:?must be given}
