FROM alpine
RUN <<'END'
echo $NOT_BY_THE_BUILDER
END
RUN <<"END"
echo two
END
