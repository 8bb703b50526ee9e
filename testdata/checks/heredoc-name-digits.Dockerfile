FROM scratch
RUN <<1
x
1
