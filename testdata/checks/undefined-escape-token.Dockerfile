# escape=`
FROM scratch
ENV A=`$x B=\$y
COPY `$a \$b /
