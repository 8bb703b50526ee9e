FROM scratch
COPY <<A <<"B" /x/
$one
A
$two
B
RUN <<C
$three
C
