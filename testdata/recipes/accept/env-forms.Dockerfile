FROM alpine
ENV A=1 B="two words" C='single $A' D=with\ blank E=
ENV OLD form with = sign
ENV LONG=a \
    OTHER=b \
    # between
    LAST="c"
ENV URL=https://example.com/?a=b&c=d
