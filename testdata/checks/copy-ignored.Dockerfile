FROM scratch
COPY a.txt /
COPY b.txt /
COPY dir/c /
COPY . /
COPY *.txt /
COPY ./a.txt /
COPY /a.txt /
ADD a.txt /
ADD https://example.com/a.txt /
COPY <<a.txt /
a.txt
COPY dir/../a.txt /
